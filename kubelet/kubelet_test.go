package kubelet_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/kubelet"
	"keelson.dev/keelson/kubelet/act"
)

// A pod with a ConfigMap volume and environment goes the whole way: Pending, Running, Ready, deleted, nothing left.
func TestPodLife(t *testing.T) {
	n := start(t, nil)
	_, err := n.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}, Data: map[string]string{"color": "blue"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := pod("web", corev1.Container{
		Name: "web", Image: "nginx:1.27", Command: []string{"serve", "$(COLOR)"},
		Env: []corev1.EnvVar{
			{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
			{Name: "WHO", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
		},
		VolumeMounts: []corev1.VolumeMount{{Name: "conf", MountPath: "/etc/app"}},
	})
	p.Spec.Volumes = []corev1.Volume{{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}}
	n.create(p)

	got := n.until("web", "Running and Ready", running)
	s := got.Status.ContainerStatuses[0]
	if !strings.HasPrefix(s.ContainerID, "keelson://") || s.RestartCount != 0 || s.State.Running == nil {
		t.Errorf("container status = %+v, want a running one with ID keelson://...", s)
	}
	if got.Status.PodIP == "" || got.Status.HostIP != "192.0.2.10" || got.Status.QOSClass != corev1.PodQOSBestEffort || got.Status.StartTime == nil {
		t.Errorf("status lacks addresses, class or start time: %+v", got.Status)
	}
	cfg := n.runtime.Config("web", "web")
	env := map[string]string{}
	for _, e := range cfg.GetEnvs() {
		env[e.GetKey()] = string(e.GetValue())
	}
	for k, want := range map[string]string{"COLOR": "blue", "WHO": "web", "KUBERNETES_SERVICE_HOST": "10.96.0.1"} {
		if env[k] != want {
			t.Errorf("environment %s = %q, want %q", k, env[k], want)
		}
	}
	if want := []string{"serve", "blue"}; !slices.Equal(cfg.GetCommand(), want) {
		t.Errorf("command = %q, want %q", cfg.GetCommand(), want)
	}
	var dests []string
	for _, m := range cfg.GetMounts() {
		dests = append(dests, m.GetContainerPath())
		if m.GetContainerPath() == "/etc/app" {
			b, err := os.ReadFile(filepath.Join(m.GetHostPath(), "color"))
			if err != nil || string(b) != "blue" {
				t.Errorf("mounted ConfigMap has color %q (%v), want blue", b, err)
			}
		}
	}
	for _, want := range []string{"/etc/app", "/etc/hosts", "/dev/termination-log"} {
		if !slices.Contains(dests, want) {
			t.Errorf("mounts = %v, want %s among them", dests, want)
		}
	}
	n.event("web", "Pulled")
	n.event("web", "Started")

	n.delete("web", 30)
	n.until("web", "gone from the API", isGone)
	if !n.runtime.Empty() {
		t.Errorf("the runtime still holds something after deletion; journal %q", n.runtime.Journal())
	}
	if _, err := os.Stat(filepath.Join(n.cfg.Paths.Root, "pods", string(p.UID))); !os.IsNotExist(err) {
		t.Errorf("pod directory is left after deletion (%v)", err)
	}
}

// A container that exits 0 under restartPolicy Never makes the pod Succeeded; 1 makes it Failed.
func TestRunToCompletion(t *testing.T) {
	n := start(t, nil)
	for name, c := range map[string]struct {
		image string
		want  corev1.PodPhase
	}{"good": {"exit:0", corev1.PodSucceeded}, "bad": {"exit:1", corev1.PodFailed}} {
		p := pod(name, corev1.Container{Name: "c", Image: c.image})
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		n.create(p)
		got := n.until(name, "ended", phase(c.want))
		if s := got.Status.ContainerStatuses[0].State.Terminated; s == nil || s.Reason == "" {
			t.Errorf("%s: container state = %+v, want terminated with a reason", name, got.Status.ContainerStatuses[0].State)
		}
	}
}

// An image that cannot be pulled shows ErrImagePull, then ImagePullBackOff, in the registry's words.
func TestPullFailure(t *testing.T) {
	n := start(t, nil)
	n.create(pod("lost", corev1.Container{Name: "c", Image: "missing/image:1"}))
	reason := func(want string) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			if p == nil || len(p.Status.ContainerStatuses) == 0 {
				return false
			}
			w := p.Status.ContainerStatuses[0].State.Waiting
			return w != nil && w.Reason == want && strings.Contains(w.Message, "not found")
		}
	}
	n.until("lost", "ErrImagePull", reason("ErrImagePull"))
	n.until("lost", "ImagePullBackOff", reason("ImagePullBackOff"))
	if msg := n.event("lost", "BackOff"); msg != `Back-off pulling image "missing/image:1"` {
		t.Errorf("BackOff event says %q", msg)
	}
}

// A crashing container restarts at once, then waits in CrashLoopBackOff with its last state kept.
func TestCrashLoop(t *testing.T) {
	n := start(t, nil)
	n.create(pod("crash", corev1.Container{Name: "c", Image: "exit:3"}))
	got := n.until("crash", "CrashLoopBackOff", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	s := got.Status.ContainerStatuses[0]
	if s.RestartCount != 1 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 3 {
		t.Errorf("status = %+v, want one restart and exit code 3 in the last state", s)
	}
}

// The daemon restarts: the same containers run on, nothing is created again.
func TestRestartKeepsPods(t *testing.T) {
	n := start(t, nil)
	p := n.create(pod("web", corev1.Container{Name: "web", Image: "nginx:1"}))
	before := n.until("web", "Running", running)
	n.create(pod("orphan", corev1.Container{Name: "o", Image: "nginx:1"}))
	n.until("orphan", "Running", running)
	n.stop()
	calls := len(n.runtime.Journal())
	if err := n.client.CoreV1().Pods("default").Delete(t.Context(), "orphan", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.run()
	n.create(pod("next", corev1.Container{Name: "n", Image: "nginx:1"}))
	n.until("next", "Running", running)
	after := n.until("web", "Running", running)
	if a, b := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("after the restart the container is %s (restarts %d), before it was %s", b.ContainerID, b.RestartCount, a.ContainerID)
	}
	n.until("web", "the orphan's containers gone", func(*corev1.Pod) bool { return n.runtime.Config("orphan", "o") == nil })
	for _, call := range n.runtime.Journal()[calls:] {
		if call == "RunPodSandbox web" || call == "StartContainer web" {
			t.Errorf("the restart did %q for pod %s", call, p.Name)
		}
	}
}

// Init containers run one by one before the rest; sidecars stop last.
func TestInitAndSidecarOrder(t *testing.T) {
	n := start(t, nil)
	always := corev1.ContainerRestartPolicyAlways
	p := pod("ordered", corev1.Container{Name: "app", Image: "nginx:1"})
	p.Spec.InitContainers = []corev1.Container{
		{Name: "first", Image: "exit:0"},
		{Name: "proxy", Image: "nginx:1", RestartPolicy: &always},
		{Name: "second", Image: "exit:0"},
	}
	n.create(p)
	n.until("ordered", "Running", running)
	n.delete("ordered", 10)
	n.until("ordered", "gone", isGone)
	var order []string
	for _, call := range n.runtime.Journal() {
		verb, name, _ := strings.Cut(call, " ")
		if verb == "StartContainer" || verb == "StopContainer" {
			order = append(order, strings.TrimSuffix(verb, "Container")+" "+name)
		}
	}
	want := []string{"Start first", "Start proxy", "Start second", "Start app", "Stop app", "Stop proxy"}
	if !slices.Equal(order, want) {
		t.Errorf("order = %q, want %q", order, want)
	}
}

// nodeName set past the scheduler: a pod that does not fit is Failed with the reason (HOSTILE PS12).
func TestHostile_PS12(t *testing.T) {
	n := start(t, nil)
	p := pod("picky", corev1.Container{Name: "c", Image: "nginx:1"})
	p.Spec.NodeSelector = map[string]string{"kubernetes.io/arch": "riscv"}
	n.create(p)
	got := n.until("picky", "Failed", phase(corev1.PodFailed))
	if got.Status.Reason != "NodeAffinity" {
		t.Errorf("reason = %q, want NodeAffinity", got.Status.Reason)
	}
	for _, call := range n.runtime.Journal() {
		if strings.HasPrefix(call, "RunPodSandbox") {
			t.Errorf("a refused pod got a sandbox: %q", call)
		}
	}
}

// Static pods run without the API's consent, are mirrored there, and a bad manifest disturbs no other (PS23).
func TestHostile_PS23(t *testing.T) {
	manifests := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(manifests, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: beacon}\nspec:\n  containers: [{name: c, image: 'nginx:1'}]\n")
	write("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: broken}\nspec:\n  containers: [{name: c, imag")
	write("bomb.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"+
		"d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]\n")
	write("twin.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: beacon}\nspec:\n  containers: [{name: other, image: 'nginx:1'}]\n")
	n := start(t, func(c *kubelet.Config) { c.Paths.Manifests = manifests })
	got := n.until("beacon-node-1", "mirrored and Running", running)
	if got.Annotations["kubernetes.io/config.mirror"] == "" {
		t.Errorf("the static pod's API object is no mirror: %v", got.Annotations)
	}
	if err := os.Remove(filepath.Join(manifests, "twin.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(manifests, "good.yaml")); err != nil {
		t.Fatal(err)
	}
	n.until("beacon-node-1", "mirror gone with its file", isGone)
	n.until("beacon-node-1", "containers gone", func(*corev1.Pod) bool { return n.runtime.Empty() })
}

// A pre-stop hook runs once, however often the pod is looked at while it ends, and the deletion takes no longer than
// the grace period.
func TestPreStopRunsOnce(t *testing.T) {
	n := start(t, nil)
	var calls atomic.Int32
	began := make(chan struct{}, 8)
	n.runtime.OnExec = func(string, []string) (string, int32) {
		calls.Add(1)
		began <- struct{}{}
		time.Sleep(50 * time.Millisecond) // the hook's own work
		return "", 0
	}
	p := pod("polite", corev1.Container{Name: "c", Image: "nginx:1"})
	p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"bye"}}}}
	n.create(p)
	n.until("polite", "Running", running)
	n.delete("polite", 30)
	<-began
	for range 5 { // versions of the pod come by while it ends
		got, err := n.client.CoreV1().Pods("default").Get(t.Context(), "polite", metav1.GetOptions{})
		if err != nil {
			break // gone already
		}
		got.Labels = map[string]string{"n": got.Labels["n"] + "x"}
		_, _ = n.client.CoreV1().Pods("default").Update(t.Context(), got, metav1.UpdateOptions{}) // a conflict is as good a disturbance
	}
	n.until("polite", "gone", isGone)
	if got := calls.Load(); got != 1 {
		t.Errorf("the pre-stop hook ran %d times, want once", got)
	}
}

// Content of a mounted ConfigMap follows its object; a pod that waits for a missing one starts when it comes.
func TestVolumesFollowTheirObjects(t *testing.T) {
	n := start(t, nil)
	p := pod("reader", corev1.Container{Name: "c", Image: "nginx:1", VolumeMounts: []corev1.VolumeMount{{Name: "conf", MountPath: "/conf"}}})
	p.Spec.Volumes = []corev1.Volume{{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "late"}}}}}
	n.create(p)
	n.event("reader", "FailedMount")
	maps := n.client.CoreV1().ConfigMaps("default")
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "late"}, Data: map[string]string{"k": "1"}}
	if _, err := maps.Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.until("reader", "Running", running)
	cm.Data["k"], cm.ResourceVersion = "2", "2"
	if _, err := maps.Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(n.volumes.dir, string(p.UID), "conf", "k")
	n.until("reader", "new content", func(*corev1.Pod) bool {
		b, err := os.ReadFile(file)
		return err == nil && string(b) == "2"
	})
}

// A runtime without an event stream is polled instead.
func TestPlainRuntime(t *testing.T) {
	n := start(t, nil)
	n.stop()
	n.runtime.Plain = true
	n.run()
	n.create(pod("web", corev1.Container{Name: "web", Image: "nginx:1"}))
	n.until("web", "Running", running)
	if err := n.runtime.Exit("web", "web", 1); err != nil {
		t.Fatal(err)
	}
	n.until("web", "restarted", func(p *corev1.Pod) bool {
		return running(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	n.delete("web", 5)
	n.until("web", "gone", isGone)
}

// Sysctls that are not safe, not allowed or not of the pod's own are refused (PS18).
func TestHostile_PS18(t *testing.T) {
	for _, c := range []struct {
		name, value string
		host        bool
		unsafe      []string
		refused     bool
	}{
		{"kernel.shm_rmid_forced", "1", false, nil, false}, {"kernel/shm_rmid_forced", "1", false, nil, false},
		{"net.core.somaxconn", "1", false, nil, true}, {"net.core.somaxconn", "1", false, []string{"net.core.*"}, false},
		{"net.ipv4.tcp_syncookies", "1", true, nil, true}, {"kernel.core_pattern", "|/x", false, []string{"kernel.*"}, true},
		{"net.ipv4.tcp_slow_start_after_idle", "0", false, nil, false}, {"net.ipv4.tcp_notsent_lowat", "16384", false, nil, false},
		{"kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x", false, nil, true}, {"kernel.shm..x", "1", false, []string{"kernel.shm*"}, true},
	} {
		p := pod("p", corev1.Container{Name: "c"})
		p.Spec.HostNetwork = c.host
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: c.name, Value: c.value}}}
		if why := kubelet.Sysctls(p, c.unsafe); (why != "") != c.refused {
			t.Errorf("%s=%s (host network %t, allowed %q): %q", c.name, c.value, c.host, c.unsafe, why)
		}
	}
}

// Resources change in place without a restart; what can never fit is Infeasible, and neither invalid nor repeated
// changes disturb the container (PS24).
func TestHostile_PS24(t *testing.T) {
	n := start(t, nil)
	list := func(cpu, mem string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(mem)}
	}
	p := pod("elastic", corev1.Container{Name: "c", Image: "nginx:1", Resources: corev1.ResourceRequirements{
		Requests: list("100m", "32Mi"), Limits: list("100m", "32Mi")}})
	n.create(p)
	n.until("elastic", "Running", running)
	resize := func(cpu, mem string) {
		t.Helper()
		for {
			got, err := n.client.CoreV1().Pods("default").Get(t.Context(), "elastic", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list(cpu, mem), Limits: list(cpu, mem)}
			got.Generation++
			if _, err = n.client.CoreV1().Pods("default").Update(t.Context(), got, metav1.UpdateOptions{}); err == nil {
				return
			}
		}
	}
	resize("200m", "64Mi")
	n.until("elastic", "the new limit in force", func(*corev1.Pod) bool { return n.runtime.Limit("elastic", "c") == 64<<20 })
	resize("200m", "9000Gi")
	got := n.until("elastic", "refused", func(p *corev1.Pod) bool {
		return p != nil && condition(p, corev1.PodResizePending) == corev1.ConditionTrue
	})
	for _, c := range got.Status.Conditions {
		if c.Type == corev1.PodResizePending && c.Reason != corev1.PodReasonInfeasible {
			t.Errorf("reason = %s, want Infeasible", c.Reason)
		}
	}
	for i := range 50 {
		resize("200m", []string{"64Mi", "48Mi"}[i%2])
	}
	resize("200m", "40Mi")
	n.until("elastic", "the last limit in force", func(*corev1.Pod) bool { return n.runtime.Limit("elastic", "c") == 40<<20 })
	got = n.until("elastic", "no longer pending", func(p *corev1.Pod) bool { return p != nil && condition(p, corev1.PodResizePending) == "" && running(p) })
	if s := got.Status.ContainerStatuses[0]; s.RestartCount != 0 || n.runtime.Running("elastic", "c") != 1 {
		t.Errorf("after all resizes: %+v, running %d times", s, n.runtime.Running("elastic", "c"))
	}
}

// A static pod runs although the API answers nothing: it may be what is to bring it up.
func TestStaticPodWithoutAPI(t *testing.T) {
	manifests := t.TempDir()
	manifest := "apiVersion: v1\nkind: Pod\nmetadata: {name: api}\nspec:\n  hostNetwork: true\n  containers: [{name: c, image: 'nginx:1'}]\n"
	if err := os.WriteFile(filepath.Join(manifests, "api.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startWith(t, func(c *kubelet.Config, d *kubelet.Deps) {
		c.Paths.Manifests = manifests
		dead := fake.NewClientset()
		dead.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no API") })
		dead.PrependWatchReactor("*", func(clienttesting.Action) (bool, watch.Interface, error) { return true, nil, errors.New("no API") })
		d.Client = dead
	}, notReady)
	n.until("api-node-1", "its container running", func(*corev1.Pod) bool { return n.runtime.Running("api-node-1", "c") == 1 })
}

// A pod with SELinux options runs on a node without SELinux, whose runtime refuses them, and says that they are without effect.
func TestSELinuxOff(t *testing.T) {
	if act.SELinuxOn() {
		t.Skip("this host has SELinux")
	}
	n := start(t, nil)
	p := pod("p", corev1.Container{Name: "c", Image: "nginx:1", SecurityContext: &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}}})
	p.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1,c2"}}
	n.create(p)
	n.until("p", "Running", running)
	if said := n.event("p", "SELinuxNotSupported"); !strings.Contains(said, "node-1") {
		t.Errorf("event: %s", said)
	}
}
