package storage

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// driverImage is the tests' own CSI driver.
const driverImage = "docker.io/library/csidriver:v1"

var buildDriver sync.Once

// driver is an installed CSI driver.
type driver struct {
	name string
	data string // its folder on the node
}

// installDriver runs the driver as a DaemonSet, as vendors do, and waits until the node knows it.
func installDriver(t *testing.T, c *lab.Cluster, name, object string) driver {
	t.Helper()
	buildDriver.Do(func() { labtest.Program(t, "csidriver", driverImage) })
	d := driver{name: name, data: filepath.Join(c.Dir, "csi", name)}
	if err := os.RemoveAll(d.data); err != nil { // of an earlier run
		t.Fatal(err)
	}
	kubelet := filepath.Join(c.Dir, "kubelet")
	if err := os.MkdirAll(filepath.Join(kubelet, "plugins", name), 0o755); err != nil {
		t.Fatal(err)
	}
	pod, err := json.Marshal(map[string]any{
		"terminationGracePeriodSeconds": 5,
		"containers": []any{map[string]any{
			"name": "driver", "image": driverImage, "securityContext": map[string]any{"privileged": true},
			"args": []string{"--name", name, "--node", c.NodeName, "--data", d.data, "--endpoint", filepath.Join(kubelet, "plugins", name, "csi.sock"),
				"--registry", filepath.Join(kubelet, "plugins_registry")},
			"volumeMounts": []any{map[string]any{"name": "kubelet", "mountPath": kubelet, "mountPropagation": "Bidirectional"},
				map[string]any{"name": "data", "mountPath": d.data}, map[string]any{"name": "dev", "mountPath": "/dev"}},
		}},
		"volumes": []any{map[string]any{"name": "kubelet", "hostPath": map[string]any{"path": kubelet}},
			map[string]any{"name": "data", "hostPath": map[string]any{"path": d.data, "type": "DirectoryOrCreate"}},
			map[string]any{"name": "dev", "hostPath": map[string]any{"path": "/dev"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	labels := `{csi: "` + name + `"}`
	apply(t, c, `{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: `+name+`}, spec: `+object+`}`+"\n---\n"+
		`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: `+name+`}, spec: {selector: {matchLabels: `+labels+`}, template: {metadata: {labels: `+labels+`}, spec: `+string(pod)+`}}}`)
	d.registered(t, c)
	return d
}

// registered waits until CSINode shows the driver.
func (d driver) registered(t *testing.T, c *lab.Cluster) {
	t.Helper()
	has(t, c, "csinode/"+c.NodeName, `.spec.drivers[?(@.name=="`+d.name+`")].nodeID`, c.NodeName)
}

// call is one line of what the driver was asked.
type call struct {
	Method  string
	Request struct {
		VolumeID       string            `json:"volume_id"`
		TargetPath     string            `json:"target_path"`
		Staging        string            `json:"staging_target_path"`
		Readonly       bool              `json:"readonly"`
		VolumeContext  map[string]string `json:"volume_context"`
		PublishContext map[string]string `json:"publish_context"`
		Secrets        map[string]string `json:"secrets"`
		Parameters     map[string]string `json:"parameters"`
	}
}

// calls are those of one method about one volume.
func (d driver) calls(t *testing.T, method, volume string) []call {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.data, "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var out []call
	for line := range strings.Lines(string(raw)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var one call
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if one.Method == method && (volume == "" || one.Request.VolumeID == volume) {
			out = append(out, one)
		}
	}
	return out
}

// fault switches a fault on; the returned function switches it off.
func (d driver) fault(t *testing.T, name string) (off func()) {
	t.Helper()
	path := filepath.Join(d.data, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	off = func() { _ = os.Remove(path) }
	t.Cleanup(off)
	return off
}

// madeByHand makes a volume of the driver that nobody asked it for, with one file.
func (d driver) madeByHand(t *testing.T, id string) {
	t.Helper()
	dir := filepath.Join(d.data, "volumes", id)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{filepath.Join(dir, "old"): "data\n", dir + ".json": `{"name": "` + id + `", "bytes": 1048576}`} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func csiVolume(name, driver, more string) string {
	return `{apiVersion: v1, kind: PersistentVolume, metadata: {name: ` + name + `}, spec: {capacity: {storage: 10Mi}, accessModes: [ReadWriteOnce], storageClassName: hand, ` +
		`claimRef: {namespace: default, name: ` + name + `}, csi: {driver: ` + driver + `, volumeHandle: ` + name + more + `}}}` + "\n---\n"
}

// TestCSI_Static: a volume that an administrator made is staged once and published to each pod, with what its driver wants to know; a
// server that is killed in between goes on; at the end nothing is left mounted.
func TestCSI_Static(t *testing.T) {
	c := cluster(t)
	d := installDriver(t, c, "static.csi.test", `{attachRequired: false, podInfoOnMount: true, fsGroupPolicy: File, tokenRequests: [{audience: vault}]}`)
	has(t, c, "csinode/"+c.NodeName, `.spec.drivers[?(@.name=="static.csi.test")].topologyKeys[0]`, "topology.static.csi.test/node")
	has(t, c, "node/"+c.NodeName, `.metadata.labels.topology\.static\.csi\.test/node`, c.NodeName)
	d.madeByHand(t, "by-hand")
	// Staged, not published: then the server dies.
	off := d.fault(t, "refuse-NodePublishVolume")
	apply(t, c, `{apiVersion: v1, kind: Secret, metadata: {name: for-driver}, stringData: {key: word}}`+"\n---\n"+
		csiVolume("by-hand", d.name, `, volumeAttributes: {a: b}, nodePublishSecretRef: {namespace: default, name: for-driver}`)+claim("by-hand", ", storageClassName: hand")+
		strings.Replace(user("csi-one", "by-hand", "cat /data/old && echo new > /data/new"), "{terminationGracePeriodSeconds", "{securityContext: {fsGroup: 4321}, terminationGracePeriodSeconds", 1))
	eventually(t, "the driver refuses", func() string {
		if len(d.calls(t, "NodePublishVolume", "by-hand")) == 0 {
			return "it was not asked"
		}
		return ""
	})
	tells(t, c, "csi-one", "FailedMount")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	off()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitPod(t, c, "csi-one", "condition=Ready")
	published := d.calls(t, "NodePublishVolume", "by-hand")
	last := published[len(published)-1].Request
	facts := last.VolumeContext
	if facts["a"] != "b" || facts["csi.storage.k8s.io/pod.name"] != "csi-one" || !strings.Contains(facts["csi.storage.k8s.io/serviceAccount.tokens"], `"vault":{"token":"`) {
		t.Errorf("the driver hears %v", facts)
	}
	if last.Secrets["key"] != "word" {
		t.Errorf("the driver's secrets have the keys %d", len(last.Secrets))
	}
	dir := filepath.Join(d.data, "volumes", "by-hand")
	if out := kubectl(t, c, "exec", "csi-one", "--", "stat", "-c", "%g", "/data/old"); out != "4321\n" {
		t.Errorf("the file's group is %q", out)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "new")); err != nil || string(text) != "new\n" {
		t.Errorf("the pod wrote %q %v", text, err)
	}
	// A second pod of the node shares what is staged; the first one's end leaves it there.
	apply(t, c, user("csi-two", "by-hand", "cat /data/new"))
	waitPod(t, c, "csi-two", "condition=Ready")
	kubectl(t, c, "delete", "pod", "csi-one", "--now")
	if n := len(d.calls(t, "NodeUnstageVolume", "by-hand")); n != 0 {
		t.Errorf("unstaged %d times under a pod", n)
	}
	if out := kubectl(t, c, "exec", "csi-two", "--", "cat", "/data/new"); out != "new\n" {
		t.Errorf("the second pod reads %q", out)
	}
	kubectl(t, c, "delete", "pod", "csi-two", "--now")
	if n := len(d.calls(t, "NodeUnstageVolume", "by-hand")); n == 0 {
		t.Error("never unstaged")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "kubernetes.io~csi") && strings.Contains(line, c.Dir) {
			t.Errorf("left mounted: %s", line)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "old")); err != nil {
		t.Errorf("the volume's data: %v", err)
	}
	// The driver's end is seen.
	kubectl(t, c, "delete", "daemonset", d.name)
	has(t, c, "csinode/"+c.NodeName, `.spec.drivers[?(@.name=="static.csi.test")].name`, "")
}
