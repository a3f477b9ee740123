package endpoints

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// parse reads pods: "1 2:down 3:going 4:ended 5:other".
func parse(text string) (out []*corev1.Pod) {
	for _, word := range strings.Fields(text) {
		n, how, _ := strings.Cut(word, ":")
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p" + n, Namespace: "ns", UID: types.UID("u" + n)},
			Spec:   corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
			Status: corev1.PodStatus{PodIP: "10.0.0." + n, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
		switch how {
		case "down":
			p.Status.Conditions[0].Status = corev1.ConditionFalse
		case "going":
			at := metav1.NewTime(time.Unix(1, 0))
			p.DeletionTimestamp = &at
		case "ended":
			p.Status.Phase = corev1.PodFailed
		case "other":
			p.Spec.Containers[0].Ports[0].ContainerPort = 9090
		case "none":
			p.Spec.Containers[0].Ports = nil
		case "noip":
			p.Status.PodIP = ""
		}
		out = append(out, p)
	}
	return out
}

func service(ports ...string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", Labels: map[string]string{"l": "v"}}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9"}}
	for i, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.Parse(p)})
	}
	return s
}

func text(e *corev1.Endpoints) string {
	var out []string
	for _, s := range e.Subsets {
		var words []string
		for _, a := range s.Addresses {
			words = append(words, a.IP)
		}
		for _, a := range s.NotReadyAddresses {
			words = append(words, "!"+a.IP)
		}
		for _, p := range s.Ports {
			words = append(words, fmt.Sprint(p.Port))
		}
		out = append(out, strings.Join(words, " "))
	}
	return strings.Join(out, "; ")
}

func TestPlan(t *testing.T) {
	headless := func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }
	publish := func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }
	for _, c := range []struct {
		name, pods, want string
		ports            []string
		opt              func(*corev1.Service)
	}{
		{name: "ready and not", pods: "2 1 3:down", ports: []string{"http"}, want: "10.0.0.1 10.0.0.2 !10.0.0.3 8080"},
		{name: "what goes, has ended, or has no address", pods: "1:going 2:ended 3:noip", ports: []string{"http"}},
		{name: "published", pods: "1:going 2:down 3:ended", ports: []string{"http"}, opt: publish, want: "10.0.0.1 10.0.0.2 8080"},
		{name: "ports by name", pods: "1 2:other 3 4:none", ports: []string{"http"}, want: "10.0.0.1 10.0.0.3 8080; 10.0.0.2 9090"},
		{name: "two ports", pods: "1 4:none", ports: []string{"http", "81"}, want: "10.0.0.1 8080 81; 10.0.0.4 81"},
		{name: "headless without ports", pods: "1", opt: headless, want: "10.0.0.1"},
	} {
		svc := service(c.ports...)
		if c.opt != nil {
			c.opt(svc)
		}
		got := plan(svc, parse(c.pods), nil)
		if text(got) != c.want {
			t.Errorf("%s: %q, want %q", c.name, text(got), c.want)
		}
		if again := plan(svc, parse(c.pods), got); again != nil {
			t.Errorf("%s: what is right is written again: %+v", c.name, again)
		}
		if _, is := got.Labels[corev1.IsHeadlessService]; is != (svc.Spec.ClusterIP == corev1.ClusterIPNone) || got.Labels["l"] != "v" || got.Labels[managedByLabel] != managedBy {
			t.Errorf("%s: labels %v", c.name, got.Labels)
		}
	}
}

func TestCapacity(t *testing.T) {
	var all []*corev1.Pod
	for i := range 1100 {
		p := parse("1")[0]
		p.UID, p.Status.PodIP = types.UID(fmt.Sprint(i)), fmt.Sprintf("10.0.%d.%d", i/250, i%250)
		if i%11 == 0 {
			p.Status.Conditions = nil
		}
		if i >= 700 {
			p.Spec.Containers[0].Ports[0].ContainerPort = 9090
		}
		all = append(all, p)
	}
	svc := service("http")
	got := plan(svc, all, nil)
	if count(got.Subsets) != capacity || got.Annotations[corev1.EndpointsOverCapacity] != truncated {
		t.Fatalf("%d addresses, %v", count(got.Subsets), got.Annotations)
	}
	if a, b := len(got.Subsets[0].Addresses), len(got.Subsets[1].Addresses); a+b != 1000 || a < 600 || b < 300 {
		t.Errorf("%d and %d ready addresses: those that are ready stay first, in proportion", a, b)
	}
	if again := plan(svc, all, got); again != nil {
		t.Error("what is right is written again")
	}
	got = plan(svc, all[:10], got)
	if _, over := got.Annotations[corev1.EndpointsOverCapacity]; over || count(got.Subsets) != 10 {
		t.Errorf("after it shrank: %d addresses, %v", count(got.Subsets), got.Annotations)
	}
}
