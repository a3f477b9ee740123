package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/lab"
)

// life is what must not change when a part is killed.
type life struct{ podUID, containerID, restarts, ip string }

func lifeOf(t *testing.T, c *lab.Cluster, pod string) life {
	t.Helper()
	f := strings.Fields(kubectl(t, c, "get", "pod", pod, "-o",
		"jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.podIP}"))
	if len(f) != 4 {
		t.Fatalf("pod %s: incomplete status %q", pod, f)
	}
	return life{f[0], f[1], f[2], f[3]}
}

// linesExact checks that a counter's log has every line once, in order, and at least n of them.
func linesExact(t *testing.T, log string, n int) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	for i, line := range lines {
		if line != fmt.Sprint("line ", i+1) {
			t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
	if len(lines) < n {
		t.Fatalf("the log has %d lines, want %d", len(lines), n)
	}
}

// logGrows waits until the log has many more lines than it had, and returns how many.
func logGrows(t *testing.T, c *lab.Cluster, pod string, from int) (n int) {
	t.Helper()
	eventually(t, "the log grows", func() string {
		n = strings.Count(kubectl(t, c, "logs", pod), "\n")
		if n < from+100 {
			return fmt.Sprintf("%d lines, had %d", n, from)
		}
		return ""
	})
	return n
}

// TestKillServer: kill -9 of keelson; pods keep running and the same pods are there afterwards, no log line lost.
func TestKillServer(t *testing.T) {
	c := ownCluster(t, lab.Options{})
	apply(t, c, fmt.Sprintf(counter, "survivor"))
	apply(t, c, `apiVersion: v1
kind: Pod
metadata: {name: leaver}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1.28", command: ["sh", "-c", "while [ ! -e /go/now ]; do sleep 0.05; done; echo said at last; exit 42"], volumeMounts: [{name: go, mountPath: /go}]}]
  volumes: [{name: go, hostPath: {path: `+t.TempDir()+`, type: Directory}}]
`)
	waitPod(t, c, "survivor", "condition=Ready")
	waitPod(t, c, "leaver", "condition=Ready")
	dir := kubectl(t, c, "get", "pod", "leaver", "-o", "jsonpath={.spec.volumes[0].hostPath.path}")
	before, pid := lifeOf(t, c, "survivor"), kubectl(t, c, "exec", "survivor", "--", "cat", "/proc/1/stat")
	n := logGrows(t, c, "survivor", 0)

	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	// One of them ends while nobody watches.
	if err := os.WriteFile(dir+"/now", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	n = logGrows(t, c, "survivor", n)
	if after := lifeOf(t, c, "survivor"); after != before {
		t.Errorf("the pod changed: %+v, was %+v", after, before)
	}
	after := kubectl(t, c, "exec", "survivor", "--", "cat", "/proc/1/stat")
	if started(after) != started(pid) {
		t.Errorf("another process runs: started at %s, was %s", started(after), started(pid))
	}
	linesExact(t, kubectl(t, c, "logs", "survivor"), n)
	waitPod(t, c, "leaver", "jsonpath={.status.phase}=Failed")
	if code := kubectl(t, c, "get", "pod", "leaver", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"); code != "42" {
		t.Errorf("the exit code of what ended meanwhile is %s, want 42", code)
	}
	if log := kubectl(t, c, "logs", "leaver"); log != "said at last\n" {
		t.Errorf("its last words: %q", log)
	}
}

// started is a process's start time in clock ticks since the boot (field 22 of stat).
func started(stat string) string {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	return f[19]
}

// TestKillKeeper: kill -9 of the keeper; containers keep running, are adopted, and exit codes are still right.
func TestKillKeeper(t *testing.T) {
	c := ownCluster(t, lab.Options{})
	apply(t, c, fmt.Sprintf(counter, "orphan"))
	apply(t, c, `apiVersion: v1
kind: Pod
metadata: {name: teller}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 30
  containers: [{name: c, image: "busybox:1.28", command: ["sh", "-c", "trap 'exit 33' USR1; while true; do sleep 0.05; done"]}]
`)
	waitPod(t, c, "orphan", "condition=Ready")
	waitPod(t, c, "teller", "condition=Ready")
	before := lifeOf(t, c, "orphan")
	n := logGrows(t, c, "orphan", 0)
	keeper, err := c.Keeper()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n = logGrows(t, c, "orphan", n)
	if after := lifeOf(t, c, "orphan"); after != before {
		t.Errorf("the pod changed: %+v, was %+v", after, before)
	}
	linesExact(t, kubectl(t, c, "logs", "orphan"), n)
	eventually(t, "a new keeper", func() string {
		if again, err := c.Keeper(); err != nil || again == keeper {
			return fmt.Sprint(again, err)
		}
		return ""
	})
	kubectl(t, c, "exec", "teller", "--", "kill", "-USR1", "1")
	waitPod(t, c, "teller", "jsonpath={.status.phase}=Failed")
	if code := kubectl(t, c, "get", "pod", "teller", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"); code != "33" {
		t.Errorf("the exit code of an adopted container is %s, want 33", code)
	}
}

// TestAcknowledgedWritesSurvive: kill -9 in the middle of writes loses nothing that was acknowledged.
func TestAcknowledgedWritesSurvive(t *testing.T) {
	c := ownCluster(t, lab.Options{})
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	acknowledged := map[string]string{}
	enough := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("w%d-%d", w, i)}, Data: map[string]string{"n": strconv.Itoa(i)}}
				made, err := client.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{})
				if err != nil {
					return // the server is being killed
				}
				mu.Lock()
				acknowledged[made.Name] = made.ResourceVersion
				if len(acknowledged) == 200 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-t.Context().Done():
		t.Fatal("no 200 writes were acknowledged")
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	cancel()
	writers.Wait()
	if err := errors.Join(c.Start(), c.WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]string{}
	for _, cm := range list.Items {
		stored[cm.Name] = cm.ResourceVersion
	}
	for name, version := range acknowledged {
		if stored[name] != version {
			t.Errorf("%s was acknowledged at %s and is stored at %q", name, version, stored[name])
		}
	}
}
