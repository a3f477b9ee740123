package workloads

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// The images of the suite's pods.
const (
	busybox = "docker.io/library/busybox:1.28"
	agnhost = "docker.io/conformance/agnhost:1"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, lab.Options{})) }

// built makes the agnhost image once.
var built sync.Once

// spec is one spec's place: a namespace on the shared server.
type spec struct {
	*testing.T
	c      *lab.Cluster
	config *rest.Config
	client kubernetes.Interface
	any    dynamic.Interface
	ns     string
}

// begin makes a spec's namespace, which goes with it. Specs run side by side; those that change the node itself use beginSerial.
func begin(t *testing.T) *spec {
	t.Helper()
	t.Parallel()
	return beginSerial(t)
}

func beginSerial(t *testing.T) *spec {
	t.Helper()
	c := labtest.Cluster(t)
	built.Do(func() { labtest.Program(t, "agnhost", agnhost) })
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	s := &spec{T: t, c: c, config: config, client: kubernetes.NewForConfigOrDie(config), any: dynamic.NewForConfigOrDie(config)}
	ns, err := s.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "spec-"}}, metav1.CreateOptions{})
	s.must(err)
	s.ns = ns.Name
	s.eventually("the namespace's account", func() string {
		if _, err := s.client.CoreV1().ServiceAccounts(s.ns).Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	t.Cleanup(func() {
		if t.Failed() {
			story, _, _ := c.Kubectl(context.Background(), "-n", s.ns, "get", "all,events", "-o", "wide")
			t.Logf("what there was:\n%s", story)
		}
		now := int64(0)
		if err := s.client.CoreV1().Namespaces().Delete(context.Background(), s.ns, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Errorf("delete namespace %s: %v", s.ns, err)
		}
	})
	return s
}

func (s *spec) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// equal compares by text, which is how a reader would.
func (s *spec) equal(what string, got, want any) {
	s.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		s.Errorf("%s is %q, want %q", what, g, w)
	}
}

func (s *spec) contains(what, text string, parts ...string) {
	s.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			s.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}

func (s *spec) eventually(what string, f func() string) {
	s.Helper()
	labtest.Within(s.T, 3*labtest.Patience, what, f)
}

// shell is a pod of one busybox container that runs a script and is not restarted.
func shell(name, script string) *corev1.Pod {
	now := int64(0)
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &now,
		Containers: []corev1.Container{{Name: "c", Image: busybox, Command: []string{"sh", "-c", script}}}}}
}

// program is a pod of one agnhost container.
func program(name string, args ...string) *corev1.Pod {
	p := shell(name, "")
	p.Spec.Containers[0].Image, p.Spec.Containers[0].Command, p.Spec.Containers[0].Args = agnhost, nil, args
	return p
}

// client is a pod to ask from: a shell, and agnhost, whose resolver is not libc's.
func client() *corev1.Pod {
	p := shell("client", "sleep 10000")
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "agnhost", Image: agnhost})
	return p
}

// server is a netexec pod with labels, ready once it answers.
func server(name string, labels map[string]string) *corev1.Pod {
	p := program(name, "netexec")
	p.Labels = labels
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080}, {ContainerPort: 8081, Protocol: corev1.ProtocolUDP}}
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/hostname", Port: intstr.FromInt32(8080)}}}
	return p
}

func (s *spec) create(p *corev1.Pod) *corev1.Pod {
	s.Helper()
	made, err := s.client.CoreV1().Pods(s.ns).Create(s.Context(), p, metav1.CreateOptions{})
	s.must(err)
	return made
}

func (s *spec) pod(name string) *corev1.Pod {
	s.Helper()
	p, err := s.client.CoreV1().Pods(s.ns).Get(s.Context(), name, metav1.GetOptions{})
	s.must(err)
	return p
}

// until waits for a state of a pod.
func (s *spec) until(name, what string, good func(*corev1.Pod) bool) *corev1.Pod {
	s.Helper()
	var p *corev1.Pod
	s.eventually(fmt.Sprintf("pod %s %s", name, what), func() string {
		if p = s.pod(name); good(p) {
			return ""
		}
		return fmt.Sprintf("phase %s (%s %s), conditions %v, containers %v, init %v", p.Status.Phase, p.Status.Reason, p.Status.Message, p.Status.Conditions, p.Status.ContainerStatuses, p.Status.InitContainerStatuses)
	})
	return p
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func condition(p *corev1.Pod, typ corev1.PodConditionType) *corev1.PodCondition {
	i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == typ })
	if i < 0 {
		return nil
	}
	return &p.Status.Conditions[i]
}

func ready(p *corev1.Pod) bool {
	c := condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// run creates a pod, waits until it is ready, and returns it.
func (s *spec) run(p *corev1.Pod) *corev1.Pod {
	s.Helper()
	s.create(p)
	return s.until(p.Name, "is ready", ready)
}

// output creates a pod, waits until it succeeded, and returns its first container's log.
func (s *spec) output(p *corev1.Pod) string {
	s.Helper()
	s.create(p)
	if e := s.until(p.Name, "ends", ended); e.Status.Phase != corev1.PodSucceeded {
		s.Errorf("pod %s %s: %+v\n%s", p.Name, e.Status.Phase, e.Status.ContainerStatuses, s.logs(p.Name, ""))
	}
	return s.logs(p.Name, p.Spec.Containers[0].Name)
}

func (s *spec) logs(pod, container string) string {
	s.Helper()
	text, err := s.client.CoreV1().Pods(s.ns).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(s.Context())
	s.must(err)
	return string(text)
}

// exec runs a command in a pod's container; the command may fail.
func (s *spec) exec(pod, container string, command ...string) (string, error) {
	cmd := s.c.KubectlCommand(s.Context(), append([]string{"-n", s.ns, "exec", pod, "-c", container, "--"}, command...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s%s", err, out.String(), errs.String())
	}
	return out.String(), nil
}

// sees waits for the watch to bring the given event types in this order; other events between them are passed over.
func (s *spec) sees(w watch.Interface, want ...watch.EventType) {
	s.Helper()
	defer w.Stop()
	limit := time.After(labtest.Patience)
	for i := 0; i < len(want); {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				s.Fatalf("the watch ended before %s", want[i])
			}
			if e.Type == watch.Error {
				s.Fatalf("the watch says %v", e.Object)
			}
			if e.Type == want[i] {
				i++
			}
		case <-limit:
			s.Fatalf("the watch does not bring %s", want[i])
		}
	}
}
