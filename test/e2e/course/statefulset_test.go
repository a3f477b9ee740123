package course

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLesson05StatefulSet: a headless Service and ordered, sticky pods web-0..2, each with its own claim.
func TestLesson05StatefulSet(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(s.lesson("05-statefulset.yaml"))
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
	claims := s.ownClaims(3)
	s.kubectl("exec", "web-1", "--", "sh", "-c", "echo page of web-1 > /usr/share/nginx/html/index.html")
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
	s.serves("web-1", "page of web-1")
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
	// The claims outlive their pods, and pods of the same names find them again.
	s.sameClaims(claims)
	s.kubectl("scale", "statefulset/web", "--replicas=2")
	s.waitReady("app=nginx", 2)
	s.sameClaims(claims)
	s.serves("web-1", "page of web-1")
	// A partition keeps the pods below it as they are.
	roll := func(partition int) {
		s.kubectl("patch", "statefulset/web", "--type=merge", "-p", fmt.Sprintf(`{"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": %d}},
			"template": {"metadata": {"annotations": {"round": "two"}}}}}`, partition))
		s.rolledOut("statefulset/web")
	}
	old := s.pod("web-0").UID
	roll(1)
	if round := s.pod("web-1").Annotations["round"]; round != "two" {
		t.Errorf("web-1, not below the partition, is of round %q", round)
	}
	if p := s.pod("web-0"); p.UID != old {
		t.Error("web-0, below the partition, was replaced")
	}
	roll(0)
	if p := s.pod("web-0"); p.UID == old || p.Annotations["round"] != "two" {
		t.Error("without the partition web-0 was not replaced")
	}
}

// ownClaims returns the volumes of the claims www-web-0.. by claim: each pod uses the claim of its own name, and each claim is bound to
// a volume of its own.
func (s *class) ownClaims(n int) map[string]string {
	s.t.Helper()
	volumes, holder := map[string]string{}, map[string]string{}
	for i := range n {
		pod := s.pod(fmt.Sprint("web-", i))
		claim := "www-" + pod.Name
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == "www" && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
		}) {
			s.t.Errorf("%s does not use %s: %+v", pod.Name, claim, pod.Spec.Volumes)
		}
		volume := s.bound(claim)
		if other, taken := holder[volume]; taken {
			s.t.Errorf("%s and %s have one volume, %s", other, claim, volume)
		}
		volumes[claim], holder[volume] = volume, claim
	}
	return volumes
}

// sameClaims expects the claims to be bound to the volumes they had.
func (s *class) sameClaims(volumes map[string]string) {
	s.t.Helper()
	for claim, volume := range volumes {
		if now := s.bound(claim); now != volume {
			s.t.Errorf("%s has the volume %s, it had %s", claim, now, volume)
		}
	}
}

// bound returns the volume of a claim, which must be bound.
func (s *class) bound(claim string) string {
	s.t.Helper()
	c, err := s.client.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), claim, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	if c.Status.Phase != corev1.ClaimBound || c.Spec.VolumeName == "" || c.DeletionTimestamp != nil {
		s.t.Fatalf("claim %s is %s, of volume %q, deleted %v", claim, c.Status.Phase, c.Spec.VolumeName, c.DeletionTimestamp)
	}
	return c.Spec.VolumeName
}

// serves waits until a pod's web server answers with a page.
func (s *class) serves(pod, page string) {
	s.t.Helper()
	s.eventually(pod+" serves "+page, func() string {
		body, err := fetch(s.t.Context(), "http://"+s.pod(pod).Status.PodIP)
		if err != nil {
			return err.Error()
		}
		if strings.TrimSpace(body) != page {
			return body
		}
		return ""
	})
}

// TestLesson16ClaimInUse: a claim of the default class cannot vanish while a pod uses it; with the pod it goes, and its volume too.
func TestLesson16ClaimInUse(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(s.lesson("16-pvc-dynamic.yaml"))
	s.until("uses-claim", "the pod runs", isReady)
	volume := s.bound("claim-dynamic")
	s.kubectl("delete", "pvc", "claim-dynamic", "--wait=false")
	if told := s.kubectl("get", "pvc", "claim-dynamic"); !strings.Contains(told, "Terminating") {
		t.Errorf("the deleted claim shows as\n%s", told)
	}
	s.kubectl("exec", "uses-claim", "--", "sh", "-c", "date >> /data/log && test -s /data/log")
	s.kubectl("delete", "pod", "uses-claim", "--now")
	s.eventually("claim and volume go", func() string {
		_, err := s.client.CoreV1().PersistentVolumeClaims(s.ns).Get(t.Context(), "claim-dynamic", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Sprint("the claim is there: ", err)
		}
		if _, err = s.client.CoreV1().PersistentVolumes().Get(t.Context(), volume, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Sprint("the volume is there: ", err)
		}
		return ""
	})
}
