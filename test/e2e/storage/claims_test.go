package storage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab"
)

func volumeOf(t *testing.T, c *lab.Cluster, claim string) string {
	t.Helper()
	return kubectl(t, c, "get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
}

// user is a pod that does one thing with a claim and then sleeps.
func user(name, claim, command string) string {
	return `{apiVersion: v1, kind: Pod, metadata: {name: ` + name + `}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: "busybox:1.28", ` +
		`command: [sh, -c, "` + command + ` && touch /tmp/done && exec sleep 3600"], readinessProbe: {periodSeconds: 1, exec: {command: [test, -e, /tmp/done]}}, volumeMounts: [{name: v, mountPath: /data}]}], ` +
		`volumes: [{name: v, persistentVolumeClaim: {claimName: ` + claim + `}}]}}` + "\n---\n"
}

func claim(name, more string) string {
	return `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: ` + name + `}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}` + more + `}}` + "\n---\n"
}

func hostVolume(name, path, more string) string {
	return `{apiVersion: v1, kind: PersistentVolume, metadata: {name: ` + name + `, labels: {pv: ` + name + `}}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], ` +
		`hostPath: {path: "` + path + `", type: DirectoryOrCreate}` + more + `}}` + "\n---\n"
}

// TestStatic is the course's lesson of volumes made by hand: bound one to one, used, kept after its claim, protected meanwhile.
func TestStatic(t *testing.T) {
	c := cluster(t)
	t.Cleanup(func() { os.RemoveAll("/var/tmp/pv-static") })
	apply(t, c, lesson(t, "15-pv-static.yaml")+"\n---\n"+user("uses-static", "claim-static", "echo kept > /data/file"))
	has(t, c, "pvc/claim-static", ".status.phase", "Bound")
	has(t, c, "pvc/claim-static", ".status.capacity.storage", "1Gi")
	has(t, c, "pv/pv-static", ".spec.claimRef.name", "claim-static")
	waitPod(t, c, "uses-static", "condition=Ready")
	if data, err := os.ReadFile("/var/tmp/pv-static/file"); err != nil || string(data) != "kept\n" {
		t.Errorf("the volume's file: %q %v", data, err)
	}
	// A second claim of the same wish finds nothing.
	apply(t, c, claim("second", `, storageClassName: manual`))
	tells(t, c, "second", "ProvisioningFailed")
	has(t, c, "pvc/second", ".status.phase", "Pending")
	// In use, both stay.
	kubectl(t, c, "delete", "pvc/claim-static", "pv/pv-static", "--wait=false")
	has(t, c, "pvc/claim-static", ".status.phase", "Bound")
	has(t, c, "pv/pv-static", ".status.phase", "Bound")
	kubectl(t, c, "delete", "pod", "uses-static", "--now")
	gone(t, c, "pvc/claim-static")
	gone(t, c, "pv/pv-static")
	if _, err := os.Stat("/var/tmp/pv-static/file"); err != nil {
		t.Error("the data of a volume to be retained is gone:", err)
	}
}

// TestDynamic is the course's lesson of the default class: the first pod has the volume made, and with the claim it goes.
func TestDynamic(t *testing.T) {
	c := cluster(t)
	apply(t, c, lesson(t, "16-pvc-dynamic.yaml"))
	waitPod(t, c, "uses-claim", "condition=Ready")
	pv := volumeOf(t, c, "claim-dynamic")
	dir := filepath.Join(c.Dir, "data", "agent", "volumes", pv)
	eventually(t, "the pod writes", func() string {
		if data, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || len(data) == 0 {
			return "no log yet"
		}
		return ""
	})
	if class := kubectl(t, c, "get", "pvc", "claim-dynamic", "-o", "jsonpath={.spec.storageClassName}"); class != "local" {
		t.Errorf("class %q", class)
	}
	kubectl(t, c, "delete", "pod", "uses-claim", "--now")
	apply(t, c, user("again", "claim-dynamic", "test -s /data/log"))
	waitPod(t, c, "again", "condition=Ready")
	kubectl(t, c, "delete", "pod", "again", "--now")
	kubectl(t, c, "delete", "pvc", "claim-dynamic")
	gone(t, c, "pv/"+pv)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the volume's data is still there: %v", err)
	}
}

// TestWaitsForFirstConsumer: without a pod nothing is made, and the claim says why.
func TestWaitsForFirstConsumer(t *testing.T) {
	c := cluster(t)
	apply(t, c, claim("waiting", ""))
	tells(t, c, "waiting", "WaitForFirstConsumer")
	has(t, c, "pvc/waiting", ".status.phase", "Pending")
}

// TestPolicies: what is left of a volume after its claim, by its policy.
func TestPolicies(t *testing.T) {
	c := cluster(t)
	dir := t.TempDir()
	for _, policy := range []string{"Retain", "Recycle", "Delete"} {
		name := strings.ToLower(policy)
		apply(t, c, hostVolume("pv-"+name, filepath.Join(dir, name), ", persistentVolumeReclaimPolicy: "+policy+", storageClassName: hand")+
			claim("claim-"+name, `, storageClassName: hand, selector: {matchLabels: {pv: pv-`+name+`}}`))
	}
	for _, name := range []string{"retain", "recycle", "delete"} {
		has(t, c, "pvc/claim-"+name, ".spec.volumeName", "pv-"+name)
		apply(t, c, user("user-"+name, "claim-"+name, "mkdir -p /data/x/.y && echo 1 > /data/x/.y/z"))
	}
	for _, name := range []string{"retain", "recycle", "delete"} {
		waitPod(t, c, "user-"+name, "condition=Ready")
		kubectl(t, c, "delete", "pod", "user-"+name, "--now")
		kubectl(t, c, "delete", "pvc", "claim-"+name)
	}
	has(t, c, "pv/pv-retain", ".status.phase", "Released")
	has(t, c, "pv/pv-delete", ".status.phase", "Failed")
	has(t, c, "pv/pv-recycle", ".status.phase", "Available")
	for name, want := range map[string]int{"retain": 1, "delete": 1, "recycle": 0} {
		if left, err := os.ReadDir(filepath.Join(dir, name)); err != nil || len(left) != want {
			t.Errorf("%s leaves %v %v, want %d", name, left, err, want)
		}
	}
	// A released volume is nobody's until an administrator frees it.
	kubectl(t, c, "patch", "pv", "pv-retain", "--type=json", "-p", `[{"op":"remove","path":"/spec/claimRef"}]`)
	has(t, c, "pv/pv-retain", ".status.phase", "Available")
}

// TestEphemeral: a claim of the pod's own, gone with it.
func TestEphemeral(t *testing.T) {
	c := cluster(t)
	apply(t, c, `{apiVersion: v1, kind: Pod, metadata: {name: scratch}, spec: {terminationGracePeriodSeconds: 0, securityContext: {runAsUser: 1000, fsGroup: 2000}, containers: [{name: a, image: "busybox:1.28",
  command: [sh, -c, "echo 1 > /data/sub/x && exec sleep 3600"], volumeMounts: [{name: v, mountPath: /data/sub, subPath: deep/er}]}],
  volumes: [{name: v, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOncePod], resources: {requests: {storage: 1Mi}}}}}}]}}`)
	waitPod(t, c, "scratch", "condition=Ready")
	pv := volumeOf(t, c, "scratch-v")
	kubectl(t, c, "delete", "pod", "scratch", "--now")
	gone(t, c, "pvc/scratch-v")
	gone(t, c, "pv/"+pv)
}

// TestBlock: a claim as a device, which grows.
func TestBlock(t *testing.T) {
	c := cluster(t)
	apply(t, c, claim("disk", ", volumeMode: Block")+`{apiVersion: v1, kind: Pod, metadata: {name: raw}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: "busybox:1.28",
  command: [sh, -c, "echo written | dd of=/dev/xvda conv=notrunc && exec sleep 3600"], volumeDevices: [{name: v, devicePath: /dev/xvda}]}],
  volumes: [{name: v, persistentVolumeClaim: {claimName: disk}}]}}`)
	waitPod(t, c, "raw", "condition=Ready")
	pv := volumeOf(t, c, "disk")
	image := filepath.Join(c.Dir, "data", "agent", "volumes", pv)
	eventually(t, "what the pod writes to the device is in the image", func() string {
		kubectl(t, c, "exec", "raw", "--", "sync")
		f, err := os.Open(image)
		if err != nil {
			return err.Error()
		}
		defer f.Close()
		b := make([]byte, 8)
		if _, err := f.Read(b); err != nil || string(b) != "written\n" {
			return string(b)
		}
		return ""
	})
	kubectl(t, c, "patch", "pvc", "disk", "-p", `{"spec":{"resources":{"requests":{"storage":"20Mi"}}}}`)
	has(t, c, "pvc/disk", ".status.capacity.storage", "20Mi")
	// The last sector is there.
	kubectl(t, c, "exec", "raw", "--", "sh", "-c", "echo end | dd of=/dev/xvda bs=512 seek=40959 conv=notrunc")
	kubectl(t, c, "delete", "pod", "raw", "--now")
	kubectl(t, c, "delete", "pvc", "disk")
	gone(t, c, "pv/"+pv)
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if b, _ := os.ReadFile(l); strings.Contains(string(b), pv) {
			t.Errorf("%s is still attached to %s", l, b)
		}
	}
}
