package workloads

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson.dev/keelson/test/lab/labtest"
)

// serving is a pod that says a word on a port, whose name is http.
func serving(word string, port int32, labels map[string]string) *corev1.Pod {
	p := readyOn(program(word, "porter"), port)
	p.Labels = labels
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: port}}
	p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: fmt.Sprint("SERVE_PORT_", port), Value: word}}
	return p
}

// hears waits until the pod "client", asking again and again, has heard just these words.
func (s *spec) hears(where string, words ...string) {
	s.Helper()
	s.eventually(fmt.Sprint(where, " says ", words), func() string {
		out, err := s.exec("client", "agnhost", append([]string{"/agnhost", "get"}, slices.Repeat([]string{"http://" + where + "/"}, 30)...)...)
		heard := strings.Fields(out)
		slices.Sort(heard)
		if heard = slices.Compact(heard); err != nil && len(words) > 0 || !slices.Equal(heard, words) {
			return fmt.Sprint(heard, err)
		}
		return ""
	})
}

// TestNamedPorts: one name of a port that is another number in each pod.
func TestNamedPorts(t *testing.T) {
	s := begin(t)
	labels := map[string]string{"app": "named"}
	s.run(client())
	s.run(serving("eight", 8080, labels))
	s.run(serving("nine", 9090, labels))
	svc := s.service("named", corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}})
	s.hears(svc.Spec.ClusterIP, "eight", "nine")
}

func (s *spec) slice(name, service, ip string, ports ...discoveryv1.EndpointPort) {
	s.Helper()
	_, err := s.client.DiscoveryV1().EndpointSlices(s.ns).Create(s.Context(), &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "e2e.example.com"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{ip}}}, Ports: ports}, metav1.CreateOptions{})
	s.must(err)
}

// TestSlicesByHand: a Service without a selector has the endpoints of all slices that name it, by address and by port.
func TestSlicesByHand(t *testing.T) {
	s := begin(t)
	s.run(client())
	one, two := s.run(serving("one", 8080, nil)).Status.PodIP, s.run(serving("two", 9090, nil)).Status.PodIP
	port := func(name string, number int32) discoveryv1.EndpointPort {
		return discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: ptr(corev1.ProtocolTCP)}
	}
	addresses := s.service("addresses", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "p", Port: 80}}})
	s.slice("addresses-1", "addresses", one, port("p", 8080))
	s.slice("addresses-2", "addresses", two, port("p", 9090))
	s.hears(addresses.Spec.ClusterIP, "one", "two")
	ports := s.service("ports", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 81}}})
	s.slice("ports-1", "ports", one, port("a", 8080))
	s.slice("ports-2", "ports", two, port("b", 9090))
	s.hears(ports.Spec.ClusterIP, "one")
	s.hears(ports.Spec.ClusterIP+":81", "two")
}

// TestServicesOfOthers: a Service that another proxy serves, or none, by its labels, is nobody's here, until they go.
func TestServicesOfOthers(t *testing.T) {
	s := begin(t)
	labels := map[string]string{"app": "word"}
	s.run(client())
	s.run(serving("word", 8080, labels))
	for label, value := range map[string]string{"service.kubernetes.io/service-proxy-name": "foo-bar", corev1.IsHeadlessService: ""} {
		name := map[bool]string{true: "of-none", false: "of-another"}[value == ""]
		svc := s.service(name, corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}})
		s.hears(svc.Spec.ClusterIP, "word")
		s.kubectl("label", "service", name, label+"="+value)
		s.hears(svc.Spec.ClusterIP)
		s.kubectl("label", "service", name, label+"-")
		s.hears(svc.Spec.ClusterIP, "word")
	}
}

// TestServiceLatency: two hundred Services of a pod that runs; each has its endpoints. How long that took is told.
func TestServiceLatency(t *testing.T) {
	s := begin(t)
	labels := map[string]string{"app": "latency"}
	s.run(serving("word", 8080, labels))
	w, err := s.client.DiscoveryV1().EndpointSlices(s.ns).Watch(t.Context(), metav1.ListOptions{})
	s.must(err)
	defer w.Stop()
	const count = 200
	begun := make(chan string, count)
	go func() { // ends with the last Service, or with the test
		for i := range count {
			name := fmt.Sprint("latency-", i)
			begun <- name
			svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}}
			if _, err := s.client.CoreV1().Services(s.ns).Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
				t.Errorf("create %s: %v", name, err)
				return
			}
		}
	}()
	made, took := map[string]time.Time{}, map[string]time.Duration{}
	for len(took) < count {
		select {
		case name := <-begun:
			made[name] = time.Now()
		case e := <-w.ResultChan():
			slice, is := e.Object.(*discoveryv1.EndpointSlice)
			if !is {
				t.Fatalf("the watch says %+v", e)
			}
			if name := slice.Labels[discoveryv1.LabelServiceName]; took[name] == 0 && len(slice.Endpoints) == 1 {
				took[name] = time.Since(made[name])
			}
		case <-time.After(3 * labtest.Patience):
			t.Fatalf("%d of %d have endpoints", len(took), count)
		}
	}
	sorted := slices.Sorted(maps.Values(took))
	t.Logf("from its creation to its endpoints: half within %v, 99 of 100 within %v", sorted[len(sorted)/2], sorted[len(sorted)*99/100])
}

// TestSidecars: they stay beside the pod's containers and end after them, in the opposite order; how they end decides nothing about the
// pod; one that ends by itself comes back; their readiness is the pod's.
func TestSidecars(t *testing.T) {
	s := begin(t)
	sidecar := func(name, script string) corev1.Container {
		return corev1.Container{Name: name, Image: busybox, RestartPolicy: ptr(corev1.ContainerRestartPolicyAlways), Command: []string{"sh", "-c", script}}
	}
	stay := func(code int) string {
		return fmt.Sprintf("trap 'exit %d' TERM; while true; do sleep 0.1; done", code)
	}
	p := shell("ends", "true")
	p.Spec.TerminationGracePeriodSeconds = ptr(int64(30))
	p.Spec.InitContainers = []corev1.Container{sidecar("first", stay(3)), {Name: "init", Image: busybox, Command: []string{"true"}}, sidecar("second", stay(4))}
	s.create(p)
	e := s.until("ends", "ends", ended)
	s.equal("the phase, whatever the sidecars said", e.Status.Phase, corev1.PodSucceeded)
	at := func(i int) time.Time { return e.Status.InitContainerStatuses[i].State.Terminated.FinishedAt.Time }
	s.equal("their ends", fmt.Sprint(e.Status.InitContainerStatuses[0].State.Terminated.ExitCode, e.Status.InitContainerStatuses[2].State.Terminated.ExitCode), "3 4")
	if at(0).Before(at(2)) || at(2).Before(e.Status.ContainerStatuses[0].State.Terminated.FinishedAt.Time) {
		t.Errorf("they ended in another order: %+v %+v", e.Status.InitContainerStatuses, e.Status.ContainerStatuses)
	}

	p = shell("returns", "sleep 10000")
	p.Spec.InitContainers = []corev1.Container{sidecar("side", "test -f /tmp/never || sleep 1; exit 1"), sidecar("gate", "sleep 10000")}
	p.Spec.InitContainers[1].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-f", "/tmp/open"}}}}
	s.create(p)
	s.until("returns", "has its sidecar started again", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodRunning && p.Status.InitContainerStatuses[0].RestartCount > 0 && p.Status.ContainerStatuses[0].RestartCount == 0
	})
	if p := s.pod("returns"); ready(p) || p.Status.ContainerStatuses[0].State.Running == nil {
		t.Errorf("the container runs, the pod is not ready before its sidecar: %+v", p.Status)
	}

	p = shell("resized", "sleep 10000")
	p.Spec.InitContainers = []corev1.Container{sidecar("side", "sleep 10000")}
	p.Spec.InitContainers[0].Resources = needing(shell("", ""), corev1.ResourceCPU, "20m").Spec.Containers[0].Resources
	s.run(p)
	resize := func(cpu string) error {
		_, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), "resized", types.StrategicMergePatchType, []byte(`{"spec":{"initContainers":[{"name":"side","resources":{"requests":{"cpu":"`+cpu+`"},"limits":{"cpu":"`+cpu+`"}}}]}}`), metav1.PatchOptions{}, "resize")
		return err
	}
	s.must(resize("30m"))
	s.until("resized", "has 30m", func(p *corev1.Pod) bool {
		r := p.Status.InitContainerStatuses[0].Resources
		return r != nil && r.Limits.Cpu().String() == "30m" && condition(p, corev1.PodResizePending) == nil
	})
	if err := resize("2000"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "allocatable") {
		t.Errorf("more than the node has: %v", err)
	}
}
