package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/test/lab"
)

// patience is how long a condition may take on a loaded machine before it counts as failed. Nothing is timed here.
const patience = 60 * time.Second

var (
	shared   *lab.Cluster
	registry *lab.Registry
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if os.Geteuid() != 0 {
		return m.Run() // every test skips with the reason
	}
	ctx := context.Background()
	var err error
	if registry, err = lab.StartRegistry(); err != nil {
		fmt.Fprintln(os.Stderr, "start the registry:", err)
		return 1
	}
	defer registry.Close()
	if shared, err = start(ctx, lab.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, "start the shared server:", err)
		return 1
	}
	defer func() {
		if code != 0 {
			fmt.Fprintf(os.Stderr, "the shared server's log ends so:\n%s\n", shared.Log())
		}
		if err := shared.Remove(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "remove the shared server:", err)
			code = 1
		}
	}()
	return m.Run()
}

// start starts a server that pulls from the registry under the images' original names.
func start(ctx context.Context, o lab.Options) (*lab.Cluster, error) {
	c, err := lab.New(o)
	if err != nil {
		return nil, err
	}
	if err := registry.Mirror(c.CertsDir()); err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, fmt.Errorf("%w (removed: %v)", err, c.Remove(ctx))
	}
	return c, nil
}

// cluster returns the shared server, or skips.
func cluster(t *testing.T) *lab.Cluster {
	t.Helper()
	needRoot(t)
	return shared
}

// ownCluster returns a server of the test's own.
func ownCluster(t *testing.T, o lab.Options) *lab.Cluster {
	t.Helper()
	needRoot(t)
	c, err := start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server's log ends so:\n%s", c.Log())
		}
		if err := c.Remove(context.Background()); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	return c
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a node makes namespaces, mounts and cgroups")
	}
}

// kubectl runs kubectl and fails the test if it fails.
func kubectl(t *testing.T, c *lab.Cluster, args ...string) string {
	t.Helper()
	out, errs, err := c.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// refused runs kubectl, which must fail, and returns what it says.
func refused(t *testing.T, c *lab.Cluster, stdin string, args ...string) string {
	t.Helper()
	out, errs, err := c.KubectlIn(t.Context(), strings.NewReader(stdin), args...)
	if err == nil {
		t.Fatalf("kubectl %s was accepted: %s", strings.Join(args, " "), out)
	}
	return out + errs
}

// apply applies a manifest and deletes its objects at the test's end.
func apply(t *testing.T, c *lab.Cluster, manifest string) {
	t.Helper()
	out, errs, err := c.KubectlIn(t.Context(), strings.NewReader(manifest), "apply", "-f", "-")
	if err != nil {
		t.Fatalf("kubectl apply: %v\n%s%s", err, out, errs)
	}
	t.Cleanup(func() {
		out, errs, err := c.KubectlIn(context.Background(), strings.NewReader(manifest), "delete", "--ignore-not-found", "--grace-period=1", "-f", "-")
		if err != nil {
			t.Errorf("kubectl delete: %v\n%s%s", err, out, errs)
		}
	})
}

// waitPod waits for a condition of a pod and, if it does not come, tells the pod's story.
func waitPod(t *testing.T, c *lab.Cluster, pod, condition string) {
	t.Helper()
	out, errs, err := c.Kubectl(t.Context(), "wait", "--for="+condition, "pod/"+pod, "--timeout="+patience.String())
	if err != nil {
		story, _, _ := c.Kubectl(context.Background(), "describe", "pod", pod)
		t.Fatalf("pod %s does not reach %s: %s%s\n%s", pod, condition, out, errs, story)
	}
}

// eventually calls f until it returns "" or patience ends; then it fails with what f said last.
func eventually(t *testing.T, what string, f func() (complaint string)) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		complaint := f()
		if complaint == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", what, complaint)
		}
		time.Sleep(50 * time.Millisecond) // between looks; the condition is what ends the wait
	}
}

func lesson(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../lessons/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
