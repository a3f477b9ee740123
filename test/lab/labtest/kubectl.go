package labtest

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/lab"
)

// Patience is how long a condition may take on a loaded machine before it counts as failed. Nothing is timed here.
const Patience = 60 * time.Second

// Kubectl runs kubectl and fails the test if it fails.
func Kubectl(t *testing.T, c *lab.Cluster, args ...string) string {
	t.Helper()
	out, errs, err := c.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// Refused runs kubectl, which must fail, and returns what it says.
func Refused(t *testing.T, c *lab.Cluster, stdin string, args ...string) string {
	t.Helper()
	out, errs, err := c.KubectlIn(t.Context(), strings.NewReader(stdin), args...)
	if err == nil {
		t.Fatalf("kubectl %s was accepted: %s", strings.Join(args, " "), out)
	}
	return out + errs
}

// Apply applies a manifest and deletes its objects at the test's end.
func Apply(t *testing.T, c *lab.Cluster, manifest string) {
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

// WaitPod waits for a condition of a pod and, if it does not come, tells the pod's story.
func WaitPod(t *testing.T, c *lab.Cluster, pod, condition string) {
	t.Helper()
	out, errs, err := c.Kubectl(t.Context(), "wait", "--for="+condition, "pod/"+pod, "--timeout="+Patience.String())
	if err != nil {
		story, _, _ := c.Kubectl(context.Background(), "describe", "pod", pod)
		t.Fatalf("pod %s does not reach %s: %s%s\n%s", pod, condition, out, errs, story)
	}
}

// Eventually calls f until it returns "" or patience ends; then it fails with what f said last.
func Eventually(t *testing.T, what string, f func() (complaint string)) {
	t.Helper()
	Within(t, Patience, what, f)
}

// Within is Eventually with another patience.
func Within(t *testing.T, patience time.Duration, what string, f func() (complaint string)) {
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

// Client returns a typed client of the cluster's administrator, for looking often: a kubectl is a process.
func Client(t *testing.T, c *lab.Cluster) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Lesson reads a file of test/lessons.
func Lesson(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(Lessons(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Lessons is the folder test/lessons, found from the test's own.
func Lessons(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		lessons := filepath.Join(dir, "lessons")
		if _, err := os.Stat(filepath.Join(lessons, "01-pod.yaml")); err == nil {
			return lessons
		}
	}
	t.Fatal("no test/lessons above this folder")
	return ""
}

// Get is the body of a page that must answer, if not at once: a container without a probe is ready when its program is started,
// not when that listens.
func Get(t *testing.T, url string) (body string) {
	t.Helper()
	Eventually(t, url, func() string {
		answer, err := http.Get(url)
		if err != nil {
			return err.Error()
		}
		defer answer.Body.Close()
		raw, err := io.ReadAll(answer.Body)
		if err != nil {
			return err.Error()
		}
		body = string(raw)
		return ""
	})
	return body
}
