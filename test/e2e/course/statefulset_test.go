package course

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// claims are lesson 05's volumes.
var claims = regexp.MustCompile(`(?s)          volumeMounts:.*`)

// TestLesson05StatefulSet: a headless Service and ordered, sticky pods web-0..2.
func TestLesson05StatefulSet(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(claims.ReplaceAllString(s.lesson("05-statefulset.yaml"), ""))
	s.rolledOut("statefulset/web")
	byName := map[string]corev1.Pod{}
	for _, p := range s.waitReady("app=nginx", 3) {
		byName[p.Name] = p
	}
	for i := range 3 {
		p, ok := byName[fmt.Sprint("web-", i)]
		if !ok || p.Spec.Hostname != p.Name || p.Spec.Subdomain != "nginx" {
			t.Fatalf("web-%d: %+v", i, p.Spec)
		}
		if i == 0 {
			continue
		}
		before := byName[fmt.Sprint("web-", i-1)]
		if at := readySince(&before); p.CreationTimestamp.Before(&at) {
			t.Errorf("%s was made at %v, %s was ready at %v", p.Name, p.CreationTimestamp, before.Name, at)
		}
	}
	// Each has a name of its own, in the Service's, and a pod that is made again has it again.
	name := "web-1.nginx." + s.ns + ".svc.cluster.local."
	resolves := func(p corev1.Pod) {
		t.Helper()
		s.eventually(name+" is the pod's", func() string {
			if got := records(s.ask(name, dns.TypeA)); got != "A "+p.Status.PodIP {
				return fmt.Sprintf("%q, the pod has %s", got, p.Status.PodIP)
			}
			return ""
		})
	}
	resolves(byName["web-1"])
	s.kubectl("delete", "pod", "web-1")
	again := s.until("web-1", "web-1 is made again", func(p *corev1.Pod) string {
		if p.UID == byName["web-1"].UID {
			return "it is the old one"
		}
		return isReady(p)
	})
	resolves(*again)
	srv := records(s.ask("_web._tcp.nginx."+s.ns+".svc.cluster.local.", dns.TypeSRV))
	for i := range 3 {
		if !strings.Contains(srv, fmt.Sprintf("80 web-%d.nginx.%s.svc.cluster.local.", i, s.ns)) {
			t.Errorf("SRV lacks web-%d: %s", i, srv)
		}
	}
	// Down from the highest number.
	s.kubectl("scale", "statefulset/web", "--replicas=1")
	s.eventually("web-0 alone is left", func() string {
		list, err := s.client.CoreV1().Pods(s.ns).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 || list.Items[0].Name != "web-0" {
			return fmt.Sprintf("%d pods, %v", len(list.Items), err)
		}
		return ""
	})
}
