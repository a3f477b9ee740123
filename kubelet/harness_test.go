package kubelet_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"keelson.dev/keelson/kubelet"
	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/kubelet/kubelettest"
	"keelson.dev/keelson/volume"
)

// node is one kubelet with a model runtime, an in-memory API and directories of its own.
type node struct {
	t       *testing.T
	client  kubernetes.Interface
	runtime *kubelettest.Runtime
	cfg     kubelet.Config
	deps    kubelet.Deps
	volumes *volumes
	stop    func()             // ends the kubelet and waits for it
	kill    context.CancelFunc // ends it at once, without waiting
	died    atomic.Bool
	eager   bool // do not wait for Ready
	kubelet *kubelet.Kubelet
}

func (n *node) dead() bool { return n.died.Load() }

var seq atomic.Int64

// start runs a kubelet until the test ends. adjust may change the configuration.
func start(t *testing.T, adjust func(*kubelet.Config)) *node {
	t.Helper()
	return startWith(t, func(c *kubelet.Config, _ *kubelet.Deps) {
		if adjust != nil {
			adjust(c)
		}
	})
}

// option changes how a node is started.
type option int

// notReady: the node need not become Ready.
const notReady option = 1

// startWith is start for those who bring another runtime.
func startWith(t *testing.T, adjust func(*kubelet.Config, *kubelet.Deps), opts ...option) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes cgroups for pods")
	}
	rt, conn := kubelettest.New(t)
	client := fake.NewClientset(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "https", Port: 443, Protocol: "TCP"}}},
	})
	dir := t.TempDir()
	n := &node{t: t, client: client, runtime: rt, volumes: &volumes{dir: filepath.Join(dir, "volumes"), client: client}}
	n.cfg = kubelet.Config{
		Node: kubelet.Node{Name: "node-1", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.10")}},
		Paths: kubelet.Paths{
			Root: filepath.Join(dir, "kubelet"), PodLogs: filepath.Join(dir, "logs"), LogLinks: filepath.Join(dir, "links"),
			ResolvConf: "-",
		},
		Shutdown:   kubelet.Shutdown{Off: true},
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		CgroupRoot: fmt.Sprintf("/keelson-test-%d-%d", os.Getpid(), seq.Add(1)),
	}
	if err := os.MkdirAll(n.cfg.Paths.LogLinks, 0o755); err != nil {
		t.Fatal(err)
	}
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	n.deps = kubelet.Deps{Client: client, CRI: conn, Volumes: n.volumes,
		Log: slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: level}))}
	adjust(&n.cfg, &n.deps)
	t.Cleanup(func() {
		if n.stop != nil {
			n.stop()
		}
		for _, m := range []string{"", "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "systemd", "unified",
			"cpu,cpuacct", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"} {
			prune(filepath.Join("/sys/fs/cgroup", m, n.cfg.CgroupRoot))
		}
	})
	n.eager = slices.Contains(opts, notReady)
	n.run()
	return n
}

// prune removes a test's own cgroup and all below it.
func prune(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			prune(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

// run starts the kubelet; stop ends it and waits.
func (n *node) run() {
	n.t.Helper()
	k, err := kubelet.New(n.cfg, n.deps)
	if err != nil {
		n.t.Fatalf("new kubelet: %v", err)
	}
	n.kubelet = k
	ctx, cancel := context.WithCancel(context.Background())
	n.kill = cancel
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }() // ends with cancel
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				n.t.Errorf("kubelet ended with: %v", err)
			}
		case <-time.After(20 * time.Second):
			n.t.Error("the kubelet did not end within 20 s of its context")
		}
	})
	if n.eager {
		return
	}
	select {
	case <-k.Ready():
	case <-time.After(20 * time.Second):
		n.t.Fatal("node did not become Ready within 20 s")
	}
}

type writer struct{ t *testing.T }

func (w writer) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// volumes is the volume manager of these tests: it writes ConfigMaps into directories.
type volumes struct {
	dir    string
	client kubernetes.Interface

	mu      sync.Mutex
	mounted map[types.UID]bool
}

func (v *volumes) Mount(ctx context.Context, pod *corev1.Pod) (map[string]act.Mounted, error) {
	out := map[string]act.Mounted{}
	for _, vol := range pod.Spec.Volumes {
		dir := filepath.Join(v.dir, string(pod.UID), vol.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if vol.ConfigMap != nil {
			cm, err := v.client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, vol.ConfigMap.Name, metav1.GetOptions{})
			if err != nil {
				return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", vol.Name, err)
			}
			for name, content := range cm.Data {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
					return nil, err
				}
			}
		}
		out[vol.Name] = act.Mounted{HostPath: dir}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mounted == nil {
		v.mounted = map[types.UID]bool{}
	}
	v.mounted[pod.UID] = true
	return out, nil
}

func (v *volumes) Refresh(ctx context.Context, pod *corev1.Pod) error {
	_, err := v.Mount(ctx, pod)
	return err
}

func (v *volumes) RefreshAt(types.UID) time.Time { return time.Time{} }

func (v *volumes) SubPath(_ context.Context, _ *corev1.Pod, _ string, _ int, m volume.Mounted, _, sub string) (string, error) {
	return filepath.Join(m.HostPath, sub), nil
}

func (v *volumes) Unmount(_ context.Context, uid types.UID) error {
	v.mu.Lock()
	delete(v.mounted, uid)
	v.mu.Unlock()
	return os.RemoveAll(filepath.Join(v.dir, string(uid)))
}

// pod makes a pod as the API server would have defaulted and the scheduler bound it.
func pod(name string, containers ...corev1.Container) *corev1.Pod {
	grace := int64(30)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(fmt.Sprintf("uid-%s-%d", name, seq.Add(1)))},
		Spec: corev1.PodSpec{
			NodeName: "node-1", RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst,
			TerminationGracePeriodSeconds: &grace, Containers: containers,
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].TerminationMessagePath = "/dev/termination-log"
	}
	return p
}

func (n *node) create(p *corev1.Pod) *corev1.Pod {
	n.t.Helper()
	out, err := n.client.CoreV1().Pods(p.Namespace).Create(n.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatalf("create pod %s: %v", p.Name, err)
	}
	return out
}

// until waits for a condition on a pod, which comes as nil once it is gone.
func (n *node) until(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		p, err := n.client.CoreV1().Pods("default").Get(n.t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			p, err = nil, nil
		}
		if err != nil {
			n.t.Fatalf("get pod %s: %v", name, err)
		}
		if ok(p) {
			return p
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("pod %s: %s did not come within 20 s; runtime did %q; status %+v", name, what, n.runtime.Journal(), status(p))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func status(p *corev1.Pod) any {
	if p == nil {
		return "gone"
	}
	return p.Status
}

// delete asks for a graceful deletion as the API server records it; the kubelet's own delete then removes the object.
func (n *node) delete(name string, grace int64) {
	n.t.Helper()
	for {
		p, err := n.client.CoreV1().Pods("default").Get(n.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			n.t.Fatalf("get pod %s: %v", name, err)
		}
		now := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
		_, err = n.client.CoreV1().Pods("default").Update(n.t.Context(), p, metav1.UpdateOptions{})
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			n.t.Fatalf("delete pod %s: %v", name, err)
		}
	}
}

// event waits for an event with that reason on the pod and returns its message.
func (n *node) event(podName, reason string) string {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		list, err := n.client.CoreV1().Events("default").List(n.t.Context(), metav1.ListOptions{})
		if err != nil {
			n.t.Fatalf("list events: %v", err)
		}
		var have []string
		for _, e := range list.Items {
			if e.InvolvedObject.Name == podName {
				if e.Reason == reason {
					return e.Message
				}
				have = append(have, e.Reason)
			}
		}
		if time.Now().After(deadline) {
			slices.Sort(have)
			n.t.Fatalf("pod %s has no event %s within 20 s, but %v", podName, reason, have)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func running(p *corev1.Pod) bool {
	return p != nil && p.Status.Phase == corev1.PodRunning && condition(p, corev1.PodReady) == corev1.ConditionTrue
}

func phase(want corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == want }
}

func isGone(p *corev1.Pod) bool { return p == nil }

func condition(p *corev1.Pod, t corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return ""
}
