package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab"
)

// TestAsPrinted: what the course prints wrong is refused: where the YAML itself is broken with the line, else with the field's path.
func TestAsPrinted(t *testing.T) {
	c := cluster(t)
	for file, want := range map[string][]string{
		"pod-ports-outside-container.yaml":   {"yaml: line 8: did not find expected '-' indicator"},
		"pod-volumes-inside-containers.yaml": {`unknown field "spec.containers[0].volumes"`},
		"replicaset-selector-mismatch.yaml":  {"spec.template.metadata.labels: Invalid value", "`selector` does not match template `labels`"},
	} {
		got := refused(t, c, lesson(t, "as-printed/"+file), "apply", "-f", "-")
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: refused with %q, want %q in it", file, got, w)
			}
		}
	}
}

// TestRefusals: the errors that a kubectl user knows.
func TestRefusals(t *testing.T) {
	c := cluster(t)
	pod := func(spec string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: " + spec + "\n"
	}
	for name, row := range map[string]struct{ manifest, want string }{
		"misplaced field":             {pod(`{containers: [{name: a, image: a}], image: b}`), `unknown field "spec.image"`},
		"ports beside the containers": {pod(`{containers: [{name: a, image: a}], ports: [{containerPort: 80}]}`), `unknown field "spec.ports"`},
		"no image":                    {pod(`{containers: [{name: a}]}`), "spec.containers[0].image: Required value"},
		"wrong port type":             {pod(`{containers: [{name: a, image: a, ports: [{containerPort: eighty}]}]}`), "containerPort"},
		"port out of range":           {pod(`{containers: [{name: a, image: a, ports: [{containerPort: 99999}]}]}`), "spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive"},
		"bad name":                    {strings.Replace(pod(`{containers: [{name: a, image: a}]}`), "bad", "Bad_Name", 1), `metadata.name: Invalid value: "Bad_Name"`},
		"volume not there":            {pod(`{containers: [{name: a, image: a, volumeMounts: [{name: v, mountPath: /v}]}]}`), `spec.containers[0].volumeMounts[0].name: Not found: "v"`},
		"unknown kind":                {"apiVersion: v1\nkind: Pot\nmetadata: {name: bad}\n", `no matches for kind "Pot" in version "v1"`},
	} {
		if got := refused(t, c, row.manifest, "create", "-f", "-"); !strings.Contains(got, row.want) {
			t.Errorf("%s: refused with %q, want %q in it", name, got, row.want)
		}
	}
	apply(t, c, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: taken}\n")
	if got := refused(t, c, "", "create", "configmap", "taken"); !strings.Contains(got, `configmaps "taken" already exists`) {
		t.Errorf("a taken name: %q", got)
	}
	if got := refused(t, c, "", "get", "pods", "-l", "a=(b"); !strings.Contains(got, "unable to parse requirement") {
		t.Errorf("a bad selector: %q", got)
	}
}

// TestPullErrors: the registry's own words reach the events, and the pod waits with ImagePullBackOff. An image that the
// node's policy refuses says so by its reason (IM39).
func TestPullErrors(t *testing.T) {
	c := cluster(t)
	const unsigned = "registry.k8s.io/library/busybox:1.28" // nobody else's name of it
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(filepath.Dir(c.CertsDir()), "policy.json")
	rules := fmt.Sprintf(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{%q:[{"type":"sigstoreSigned","keyData":%q}]}}}`,
		unsigned, base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	if err := os.WriteFile(policy, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(policy) })
	closed := closedPort(t)
	for name, row := range map[string]struct{ image, reason, event, want string }{
		"no-tag":      {"busybox:no-such-tag", "ImagePullBackOff", "ErrImagePull", "not found"},
		"unreachable": {"127.0.0.1:" + closed + "/busybox:1", "ImagePullBackOff", "ErrImagePull", "connection refused"},
		"bad-digest":  {"busybox@sha256:" + strings.Repeat("0", 64), "ImagePullBackOff", "ErrImagePull", "not found"},
		"unsigned":    {unsigned, "SignatureValidationFailed", "SignatureValidationFailed", "no signature"},
	} {
		apply(t, c, "apiVersion: v1\nkind: Pod\nmetadata: {name: pull-"+name+"}\nspec: {containers: [{name: a, image: \""+row.image+"\"}]}\n")
		eventually(t, name, func() string {
			waiting := kubectl(t, c, "get", "pod", "pull-"+name, "-o", "jsonpath={.status.containerStatuses[0].state.waiting['reason', 'message']}")
			events := kubectl(t, c, "get", "events", "--field-selector", "involvedObject.name=pull-"+name)
			if !strings.HasPrefix(waiting, row.reason) || !strings.Contains(waiting, row.want) || !strings.Contains(events, "Error: "+row.event) || !strings.Contains(events, row.want) {
				return waiting + "\n" + events
			}
			return ""
		})
	}
}

// TestSecondServer: refused, naming the one that runs.
func TestSecondServer(t *testing.T) {
	c := cluster(t)
	out, err := c.Run(t.Context(), "server")
	if err == nil || !strings.Contains(out, "is in use by keelson with pid "+strconv.Itoa(c.Pid())) {
		t.Errorf("a second server on the same data directory: %v, %q", err, out)
	}
}

// TestPortInUse: the port is named, and who has it.
func TestPortInUse(t *testing.T) {
	c := cluster(t)
	other, err := lab.New(lab.Options{Dir: t.TempDir(), Flags: []string{"--https-port", strconv.Itoa(c.Port)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	err = other.WaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "port "+strconv.Itoa(c.Port)+" is in use by process "+strconv.Itoa(c.Pid())) {
		t.Errorf("a port in use: %v", err)
	}
	if err := other.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNotRoot: a clear word, not a stack of permission errors.
func TestNotRoot(t *testing.T) {
	needRoot(t)
	binary, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--clear-groups", binary, "server", "--data-dir", t.TempDir())
	cmd.Env = append(os.Environ(), "HOME=/nonexistent")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "needs root") {
		t.Errorf("server as nobody: %v, %s", err, out)
	}
}
