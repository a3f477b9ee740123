package course

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run gives the server an upstream resolver that knows one name of the world.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "keelson-course-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "the world's DNS:", err)
		return 1
	}
	world := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(answerWorld)}
	go func() { _ = world.ActivateAndServe() }() // ended by Shutdown
	defer world.Shutdown()
	conf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+conn.LocalAddr().String()+"\n"), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return labtest.Main(m, lab.Options{Balancer: true, Flags: []string{"--resolv-conf", conf}})
}

// outside is the address that the test's world gives www.google.com.
const outside = "203.0.113.80"

func answerWorld(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	name := q.Question[0].Name
	switch known := strings.EqualFold(name, "www.google.com."); {
	case !known:
		m.Rcode = dns.RcodeNameError
	case q.Question[0].Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(outside)}}
	}
	_ = w.WriteMsg(m)
}

// class is one test's place in the course: a namespace on the shared server.
type class struct {
	t      *testing.T
	c      *lab.Cluster
	ns     string
	client kubernetes.Interface
}

// attend makes the test's namespace; it goes with the test.
func attend(t *testing.T) *class {
	t.Helper()
	c := labtest.Cluster(t)
	s := &class{t: t, c: c, client: labtest.Client(t, c)}
	ns, err := s.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "lesson-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.ns = ns.Name
	t.Cleanup(func() {
		if t.Failed() {
			story, _, _ := c.Kubectl(context.Background(), "-n", s.ns, "get", "all,events", "-o", "wide")
			t.Logf("what there was:\n%s", story)
		}
		now := int64(1)
		if err := s.client.CoreV1().Namespaces().Delete(context.Background(), s.ns, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Errorf("delete namespace %s: %v", s.ns, err)
		}
	})
	return s
}

func (s *class) kubectl(args ...string) string {
	s.t.Helper()
	return labtest.Kubectl(s.t, s.c, append([]string{"-n", s.ns}, args...)...)
}

// apply applies a manifest in the test's namespace, which takes it away.
func (s *class) apply(manifest string) {
	s.t.Helper()
	out, errs, err := s.c.KubectlIn(s.t.Context(), strings.NewReader(manifest), "-n", s.ns, "apply", "-f", "-")
	if err != nil {
		s.t.Fatalf("kubectl apply: %v\n%s%s", err, out, errs)
	}
}

func (s *class) lesson(name string) string { return labtest.Lesson(s.t, name) }

func (s *class) eventually(what string, f func() string) {
	s.t.Helper()
	labtest.Eventually(s.t, what, f)
}

// rolledOut waits for a rollout's end.
func (s *class) rolledOut(what string) {
	s.t.Helper()
	s.kubectl("rollout", "status", what, "--timeout=180s")
}

// pods are the living pods that a selector selects.
func (s *class) pods(selector string) []corev1.Pod {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		s.t.Fatal(err)
	}
	var out []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			out = append(out, p)
		}
	}
	return out
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// waitReady waits until exactly n pods are there and all are ready, and returns them.
func (s *class) waitReady(selector string, n int) []corev1.Pod {
	s.t.Helper()
	var found []corev1.Pod
	s.eventually(fmt.Sprintf("%d ready pods of %s", n, selector), func() string {
		found = s.pods(selector)
		good := 0
		for i := range found {
			if ready(&found[i]) {
				good++
			}
		}
		if len(found) != n || good != n {
			return fmt.Sprintf("%d pods, %d ready", len(found), good)
		}
		return ""
	})
	return found
}

func (s *class) service(name string) *corev1.Service {
	s.t.Helper()
	svc, err := s.client.CoreV1().Services(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return svc
}

// fetch asks once, on a connection of its own.
func fetch(ctx context.Context, url string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, answer.Status)
	}
	return string(body), err
}

// everyone asks until each of n different answers has come.
func (s *class) everyone(url string, n int) map[string]int {
	s.t.Helper()
	seen := map[string]int{}
	s.eventually(fmt.Sprintf("%d different answers of %s", n, url), func() string {
		body, err := fetch(s.t.Context(), url)
		if err != nil {
			return err.Error()
		}
		if seen[strings.TrimSpace(body)]++; len(seen) < n {
			return fmt.Sprint("so far: ", seen)
		}
		return ""
	})
	return seen
}

// ask asks the cluster's DNS.
func (s *class) ask(name string, typ uint16) *dns.Msg {
	s.t.Helper()
	svc, err := s.client.CoreV1().Services("kube-system").Get(s.t.Context(), "kube-dns", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	m, _, err := new(dns.Client).ExchangeContext(s.t.Context(), new(dns.Msg).SetQuestion(name, typ), net.JoinHostPort(svc.Spec.ClusterIP, "53"))
	if err != nil {
		s.t.Fatalf("ask %s: %v", name, err)
	}
	return m
}

func records(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, f[3]+" "+strings.Join(f[4:], " "))
	}
	return strings.Join(out, ", ")
}
