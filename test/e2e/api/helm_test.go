package api

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// helmDir is where built puts helm; TestMain removes it.
var helmDir string

// built is helm 4 as its own module of tests pins it (test/helm): the main module should not carry its dependencies.
var built = sync.OnceValues(func() (_ string, err error) {
	if helmDir, err = os.MkdirTemp("", "keelson-helm-"); err != nil {
		return "", err
	}
	path := filepath.Join(helmDir, "helm")
	cmd := exec.Command("go", "build", "-o", path, "helm.sh/helm/v4/cmd/helm")
	cmd.Dir = "../../helm"
	if out, err := cmd.CombinedOutput(); err != nil {
		os.Stderr.Write(out)
		return "", err
	}
	return path, nil
})

type helm struct {
	t         *testing.T
	c         *lab.Cluster
	path, ns  string
	out, errs string
}

// newHelm returns helm in a namespace of its own.
func newHelm(t *testing.T, c *lab.Cluster, ns string) *helm {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal("build helm:", err)
	}
	labtest.Kubectl(t, c, "create", "namespace", ns)
	t.Cleanup(func() { _, _, _ = c.Kubectl(context.Background(), "delete", "namespace", ns, "--wait=false") })
	return &helm{t: t, c: c, path: path, ns: ns}
}

func (h *helm) try(args ...string) error {
	cmd := exec.CommandContext(h.t.Context(), h.path, append(args, "--namespace", h.ns)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.c.Kubeconfig, "HOME="+h.c.Dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	h.out, h.errs = out.String(), errs.String()
	return err
}

// run runs helm, which must succeed and say want.
func (h *helm) run(want string, args ...string) {
	h.t.Helper()
	if err := h.try(args...); err != nil || !strings.Contains(h.out, want) {
		h.t.Fatalf("helm %s: %v, want %q\n%s%s", strings.Join(args, " "), err, want, h.out, h.errs)
	}
}

func (h *helm) get(args ...string) string {
	h.t.Helper()
	return labtest.Kubectl(h.t, h.c, append([]string{"--namespace", h.ns, "get"}, args...)...)
}

// TestHelmCourse is the course's chart: install, change a value, go back, take away.
func TestHelmCourse(t *testing.T) {
	c := labtest.Cluster(t)
	h := newHelm(t, c, "helm-course")
	chart := filepath.Join(labtest.Lessons(t), "chart")
	h.run("1 chart(s) linted, 0 chart(s) failed", "lint", chart)
	h.run("kind: Deployment", "template", "web", chart)
	h.run(`web serves "hello from helm"`, "install", "web", chart, "--wait", "--timeout", "2m")
	h.run("web-0.1.0", "list")
	h.run("deployed", "upgrade", "web", chart, "--set", "page=second,replicaCount=2", "--wait", "--timeout", "2m")
	if page := h.get("configmap", "web-page", "-o", "jsonpath={.data.index\\.html}"); page != "second" {
		t.Errorf("after the upgrade the page is %q", page)
	}
	if ready := h.get("deployment", "web", "-o", "jsonpath={.status.readyReplicas}"); ready != "2" {
		t.Errorf("helm waited, but %q replicas are ready", ready)
	}
	h.run("Rollback was a success", "rollback", "web", "1", "--wait", "--timeout", "2m")
	if page := h.get("configmap", "web-page", "-o", "jsonpath={.data.index\\.html}"); page != "hello from helm" {
		t.Errorf("after the rollback the page is %q", page)
	}
	h.run("Rollback to 1", "history", "web")
	h.run("uninstalled", "uninstall", "web", "--wait", "--timeout", "2m")
	if left := h.get("all,configmaps", "-l", "app.kubernetes.io/instance=web", "-o", "name"); strings.Contains(left, "deployment") {
		t.Errorf("after uninstall there is %s", left)
	}
}

// TestHelm is a chart with all that charts have: hooks, a CRD and an object of it, a subchart, a schema, notes, a test.
func TestHelm(t *testing.T) {
	c := labtest.Cluster(t)
	h := newHelm(t, c, "helm-fleet")
	t.Cleanup(func() {
		_, _, _ = c.Kubectl(context.Background(), "delete", "crd", "vessels.fleet.test", "--ignore-not-found")
	})
	const chart = "testdata/fleet"
	if err := h.try("install", "f", chart, "--set", "size=0"); err == nil || !strings.Contains(h.errs, "size") {
		t.Errorf("values against the schema: %v %s", err, h.errs)
	}
	h.run("A fleet of 1 sails.", "install", "f", chart, "--wait", "--timeout", "2m")
	if got := h.get("vessel", "f", "-o", "jsonpath={.spec.size}"); got != "1" {
		t.Errorf("the custom resource's size is %q", got)
	}
	if got := h.get("configmap", "f-found", "-o", "jsonpath={.data.cluster}{.data.has}"); got != "kubernetestrue" {
		t.Errorf("lookup and capabilities found %q", got)
	}
	if got := h.get("pod", "f-before", "-o", "jsonpath={.status.phase}"); got != "Succeeded" {
		t.Errorf("the hook's pod: %q", got)
	}
	h.get("configmap", "f-cache")
	h.run("Succeeded", "test", "f", "--timeout", "2m")
	h.run("A fleet of 2 sails.", "upgrade", "f", chart, "--set", "size=2,cache.enabled=false", "--wait", "--timeout", "2m")
	if got := h.get("vessel,configmap", "-o", "jsonpath={.items[*].metadata.name}"); strings.Contains(got, "f-cache") {
		t.Errorf("the subchart is turned off, but there is %s", got)
	}
	h.run("size: 2", "get", "values", "f")
	h.run("kind: Vessel", "get", "manifest", "f")
	h.run("STATUS: deployed", "status", "f")
	// A dry run on the server changes nothing.
	h.run("", "upgrade", "f", chart, "--set", "size=5", "--dry-run=server")
	h.run("Rollback was a success", "rollback", "f", "1", "--wait", "--timeout", "2m")
	if got := h.get("vessel", "f", "-o", "jsonpath={.spec.size}"); got != "1" {
		t.Errorf("after the rollback the custom resource's size is %q", got)
	}
	h.run("uninstalled", "uninstall", "f", "--wait", "--timeout", "2m")
	if got := h.get("vessels", "-o", "name"); got != "" {
		t.Errorf("after uninstall there is %s", got)
	}
}
