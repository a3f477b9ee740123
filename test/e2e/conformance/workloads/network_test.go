package workloads

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

func (s *spec) service(name string, in corev1.ServiceSpec) *corev1.Service {
	s.Helper()
	svc, err := s.client.CoreV1().Services(s.ns).Create(s.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"test": s.ns}}, Spec: in}, metav1.CreateOptions{})
	s.must(err)
	return svc
}

func (s *spec) changeService(name string, change func(*corev1.Service)) *corev1.Service {
	s.Helper()
	var svc *corev1.Service
	s.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		got, err := s.client.CoreV1().Services(s.ns).Get(s.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(got)
		svc, err = s.client.CoreV1().Services(s.ns).Update(s.Context(), got, metav1.UpdateOptions{})
		return err
	}))
	return svc
}

// says runs a script in the pod "client" until its output is as wanted.
func (s *spec) says(what, script, want string) {
	s.Helper()
	s.eventually(what, func() string {
		out, err := s.exec("client", "c", "sh", "-c", script)
		if strings.TrimSpace(out) != want {
			return fmt.Sprintf("%q (%v), want %q", out, err, want)
		}
		return ""
	})
}

// reaches waits until the pod "client" gets the answer; "" is none.
func (s *spec) reaches(where, want string) {
	s.Helper()
	s.answers(where, want, "get", "http://"+where+"/hostname")
}

func (s *spec) reachesUDP(where, want string) {
	s.Helper()
	s.answers("UDP "+where, want, "udp", where, "hostname")
}

func (s *spec) answers(what, want string, command ...string) {
	s.Helper()
	s.eventually(what, func() string {
		out, err := s.exec("client", "agnhost", append([]string{"/agnhost"}, command...)...)
		if strings.TrimSpace(out) != want {
			return fmt.Sprintf("%q (%v), want %q", out, err, want)
		}
		return ""
	})
}

// TestProxy: Services and pods through the proxy subresource: by port name and number, by TLS, links rewritten, every method, with a path and without.
func TestProxy(t *testing.T) {
	s := begin(t)
	p := program("porter", "porter")
	p.Labels = map[string]string{"proxy": "target"}
	for name, value := range map[string]string{"SERVE_PORT_80": `<a href="/rewriteme">test</a>`, "SERVE_PORT_1080": `<a href="/rewriteme">test</a>`, "SERVE_PORT_160": "foo", "SERVE_PORT_162": "bar",
		"SERVE_TLS_PORT_443": `<a href="/tlsrewriteme">test</a>`, "SERVE_TLS_PORT_460": "tls baz", "SERVE_TLS_PORT_462": "tls qux"} {
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: name, Value: value})
	}
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80}, {Name: "dest1", ContainerPort: 160}, {Name: "dest2", ContainerPort: 162}, {Name: "tlsdest1", ContainerPort: 460}, {Name: "tlsdest2", ContainerPort: 462}}
	s.run(readyOn(p, 80))
	s.service("svc", corev1.ServiceSpec{Selector: p.Labels, Ports: []corev1.ServicePort{{Name: "portname1", Port: 80, TargetPort: intstr.FromString("dest1")}, {Name: "portname2", Port: 81, TargetPort: intstr.FromInt32(162)},
		{Name: "tlsportname1", Port: 443, TargetPort: intstr.FromString("tlsdest1")}, {Name: "tlsportname2", Port: 444, TargetPort: intstr.FromInt32(462)}}})
	echo := program("echo", "porter", "--json-response")
	echo.Labels = map[string]string{"test": "response"}
	echo.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "SERVE_PORT_80", Value: "foo"}}
	s.run(readyOn(echo, 80))
	s.service("test-service", corev1.ServiceSpec{Selector: echo.Labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80)}}})
	asker, err := rest.HTTPClientFor(s.config)
	s.must(err)
	asker.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	base := "/api/v1/namespaces/" + s.ns
	ask := func(method, path string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), method, s.config.Host+path, nil)
		s.must(err)
		answer, err := asker.Do(request)
		s.must(err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		s.must(err)
		return answer.StatusCode, string(body)
	}
	for path, want := range map[string]string{
		"/services/svc:portname1/proxy/": "foo", "/services/http:svc:portname1/proxy/": "foo", "/services/svc:portname2/proxy/": "bar", "/services/http:svc:portname2/proxy/": "bar", "/services/svc:80/proxy/": "foo",
		"/services/https:svc:tlsportname1/proxy/": "tls baz", "/services/https:svc:tlsportname2/proxy/": "tls qux",
		"/pods/porter/proxy/": "<a href=\"" + base + "/pods/porter/proxy/rewriteme\">test</a>", "/pods/porter:1080/proxy/": "<a href=\"" + base + "/pods/porter:1080/proxy/rewriteme\">test</a>",
		"/pods/http:porter:1080/proxy/": "<a href=\"" + base + "/pods/http:porter:1080/proxy/rewriteme\">test</a>", "/pods/porter:160/proxy/": "foo", "/pods/http:porter:162/proxy/": "bar",
		"/pods/https:porter:443/proxy/": "<a href=\"" + base + "/pods/https:porter:443/proxy/tlsrewriteme\">test</a>", "/pods/https:porter:460/proxy/": "tls baz", "/pods/https:porter:462/proxy/": "tls qux",
	} {
		s.eventually(path, func() string {
			if code, body := ask("GET", base+path); code != 200 || body != want {
				return fmt.Sprintf("%d %q, want %q", code, body, want)
			}
			return ""
		})
	}
	for _, method := range []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"} {
		for _, target := range []string{"/pods/echo/proxy", "/services/test-service/proxy"} {
			want := fmt.Sprintf("{\"Body\":\"foo\",\"Method\":%q}\n", method)
			if method == "HEAD" {
				want = ""
			}
			code, body := ask(method, base+target+"/some/path/with/"+method)
			s.equal(method+" "+target+" with a path", fmt.Sprint(code, body), fmt.Sprint(200, want))
			code, body = ask(method, base+target+"?method="+method)
			if method == "GET" || method == "HEAD" {
				s.equal(method+" "+target, code, http.StatusMovedPermanently)
				continue
			}
			s.equal(method+" "+target, fmt.Sprint(code, body), fmt.Sprint(200, want))
		}
	}
	for _, path := range []string{"/api/v1/nodes/lab/proxy/logs/", "/api/v1/nodes/lab:" + s.kubeletPort() + "/proxy/logs/", "/api/v1/nodes/lab/proxy/pods", "/api/v1/nodes/lab/proxy/healthz", "/api/v1/nodes/lab/proxy/metrics", "/api/v1/nodes/lab/proxy/stats/summary"} {
		if code, body := ask("GET", path); code != 200 {
			t.Errorf("%s answers %d %.200s", path, code, body)
		}
	}
}

func (s *spec) kubeletPort() string {
	s.Helper()
	node, err := s.client.CoreV1().Nodes().Get(s.Context(), s.c.NodeName, metav1.GetOptions{})
	s.must(err)
	return fmt.Sprint(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
}

// TestWebsockets: exec by the oldest subprotocol and logs as binary, by a client that knows nothing else.
func TestWebsockets(t *testing.T) {
	s := begin(t)
	s.run(shell("ws", "echo container is alive; sleep 1000"))
	s.eventually("the log", func() string {
		if out := s.logs("ws", ""); out != "container is alive\n" {
			return out
		}
		return ""
	})
	dial := func(protocol, path string) *websocket.Conn {
		t.Helper()
		config, err := rest.TLSConfigFor(s.config)
		s.must(err)
		dialer := websocket.Dialer{TLSClientConfig: config.Clone(), Subprotocols: []string{protocol}}
		dialer.TLSClientConfig.NextProtos = nil
		conn, answer, err := dialer.DialContext(t.Context(), strings.Replace(s.config.Host, "https", "wss", 1)+"/api/v1/namespaces/"+s.ns+"/pods/ws"+path, nil)
		if err != nil {
			t.Fatalf("%s: %v %v", path, err, answer)
		}
		s.equal("the subprotocol", conn.Subprotocol(), protocol)
		return conn
	}
	all := func(conn *websocket.Conn, channel bool) string {
		defer conn.Close()
		var out bytes.Buffer
		for {
			_, message, err := conn.ReadMessage()
			if err != nil {
				if !websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseNoStatusReceived) {
					t.Errorf("the stream ends with %v", err)
				}
				return out.String()
			}
			if channel && len(message) > 0 {
				if message[0] != 1 && len(message) > 1 {
					t.Errorf("a message of channel %d: %q", message[0], message)
				}
				message = message[1:]
			}
			out.Write(message)
		}
	}
	s.equal("exec's output", all(dial("channel.k8s.io", "/exec?stderr=1&stdout=1&container=c&command=echo&command=remote+execution+test"), true), "remote execution test\n")
	s.equal("the log", all(dial("binary.k8s.io", "/log?container=c"), false), "container is alive\n")
}

// TestServiceTypes: every change between ClusterIP, NodePort and ExternalName that the profile makes, seen by DNS and by HTTP.
func TestServiceTypes(t *testing.T) {
	s := begin(t)
	labels := map[string]string{"app": "server"}
	s.run(server("server-1", labels))
	s.run(client())
	ports := []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: corev1.ProtocolTCP}}
	s.service("external", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "target." + s.ns + ".svc.cluster.local"})
	s.service("target", corev1.ServiceSpec{Selector: labels, Ports: ports})
	s.reaches("external", "server-1")

	svc := s.changeService("external", func(svc *corev1.Service) {
		svc.Spec.Type, svc.Spec.ExternalName, svc.Spec.Ports, svc.Spec.Selector = corev1.ServiceTypeClusterIP, "", ports, labels
	})
	if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == "None" {
		t.Errorf("no clusterIP after the change: %+v", svc.Spec)
	}
	s.reaches("external", "server-1")
	s.reaches(svc.Spec.ClusterIP, "server-1")

	svc = s.changeService("external", func(svc *corev1.Service) {
		svc.Spec.Type, svc.Spec.ExternalName, svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.Selector = corev1.ServiceTypeExternalName, "target."+s.ns+".svc.cluster.local", "", nil, nil
	})
	s.equal("clusterIP of an ExternalName", svc.Spec.ClusterIP, "")
	s.says("the CNAME", "nslookup -type=cname external."+s.ns+".svc.cluster.local | grep -o 'canonical name = .*'", "canonical name = target."+s.ns+".svc.cluster.local")

	svc = s.changeService("external", func(svc *corev1.Service) {
		svc.Spec.Type, svc.Spec.ExternalName, svc.Spec.Ports, svc.Spec.Selector = corev1.ServiceTypeNodePort, "", ports, labels
	})
	if svc.Spec.Ports[0].NodePort == 0 || svc.Spec.ClusterIP == "" {
		t.Errorf("no NodePort or clusterIP after the change: %+v", svc.Spec)
	}
	s.reaches("external", "server-1")
	s.reaches(fmt.Sprintf("%s:%d", s.c.NodeIP, svc.Spec.Ports[0].NodePort), "server-1")
	svc = s.changeService("external", func(svc *corev1.Service) {
		svc.Spec.Type, svc.Spec.ExternalName, svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.Selector = corev1.ServiceTypeExternalName, "target."+s.ns+".svc.cluster.local", "", nil, nil
		svc.Spec.Ports[0].NodePort = 0
	})
	s.equal("clusterIP of an ExternalName", svc.Spec.ClusterIP, "")
	s.reaches("external", "server-1")
}

// TestAffinity: session affinity by client address, switched off and on again, by clusterIP and NodePort.
func TestAffinity(t *testing.T) {
	s := begin(t)
	labels := map[string]string{"app": "three"}
	for i := range 3 {
		s.run(server(fmt.Sprint("three-", i), labels))
	}
	s.run(client())
	svc := s.service("affine", corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: labels, SessionAffinity: corev1.ServiceAffinityClientIP, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}})
	for _, where := range []string{svc.Spec.ClusterIP, "affine", fmt.Sprintf("%s:%d", s.c.NodeIP, svc.Spec.Ports[0].NodePort)} {
		for _, affine := range []bool{true, false, true} {
			s.changeService("affine", func(svc *corev1.Service) {
				svc.Spec.SessionAffinity, svc.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
				if affine {
					svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
				}
			})
			s.eventually(fmt.Sprint(where, " with affinity ", affine), func() string {
				out, err := s.exec("client", "agnhost", append([]string{"/agnhost", "get"}, slices.Repeat([]string{"http://" + where + "/hostname"}, 20)...)...)
				names := strings.Fields(out)
				slices.Sort(names)
				if names = slices.Compact(names); err != nil || (len(names) == 1) != affine {
					return fmt.Sprintf("%q, %v", names, err)
				}
				return ""
			})
		}
	}
}

// TestEndpoints: Endpoints and EndpointSlices follow pods, by port; two protocols on one port, each alone too.
func TestEndpoints(t *testing.T) {
	s := begin(t)
	labels := map[string]string{"app": "ports"}
	s.run(client())
	s.service("multi", corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Name: "portname1", Port: 80, TargetPort: intstr.FromString("p1")}, {Name: "portname2", Port: 81, TargetPort: intstr.FromString("p2")}}})
	state := func(want string) {
		t.Helper()
		s.eventually("Endpoints "+want, func() string {
			e, err := s.client.CoreV1().Endpoints(s.ns).Get(t.Context(), "multi", metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			var got []string
			for _, set := range e.Subsets {
				for _, a := range set.Addresses {
					for _, p := range set.Ports {
						got = append(got, fmt.Sprint(a.TargetRef.Name, ":", p.Port))
					}
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != want {
				return fmt.Sprint(got)
			}
			return ""
		})
	}
	one := func(name, port string, number int32) {
		p := server(name, labels)
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: port, ContainerPort: number}}
		s.run(p)
	}
	remove := func(name string) {
		s.must(s.client.CoreV1().Pods(s.ns).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}))
	}
	state("")
	one("pod1", "p1", 8080)
	state("pod1:8080")
	one("pod2", "p2", 8080)
	state("pod1:8080 pod2:8080")
	s.reaches("multi:80", "pod1")
	s.reaches("multi:81", "pod2")
	remove("pod1")
	state("pod2:8080")
	remove("pod2")
	state("")

	both := map[string]string{"app": "both"}
	s.run(server("both", both))
	tcp := corev1.ServicePort{Name: "tcp", Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: corev1.ProtocolTCP}
	udp := corev1.ServicePort{Name: "udp", Port: 80, TargetPort: intstr.FromInt32(8081), Protocol: corev1.ProtocolUDP}
	svc := s.service("both", corev1.ServiceSpec{Selector: both, Ports: []corev1.ServicePort{tcp, udp}})
	ip := svc.Spec.ClusterIP
	s.reaches(ip, "both")
	s.reachesUDP(ip+":80", "both")
	s.changeService("both", func(svc *corev1.Service) { svc.Spec.Ports = []corev1.ServicePort{tcp} })
	s.reachesUDP(ip+":80", "")
	s.reaches(ip, "both")
	s.changeService("both", func(svc *corev1.Service) { svc.Spec.Ports = []corev1.ServicePort{udp} })
	s.reaches(ip, "")
	s.reachesUDP(ip+":80", "both")
}

// TestMirroring: slices follow Endpoints that somebody writes.
func TestMirroring(t *testing.T) {
	s := begin(t)
	s.service("custom", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "example", Port: 80}}})
	endpoints := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "custom"}, Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.1.2.3"}}, Ports: []corev1.EndpointPort{{Name: "example", Port: 80}}}}}
	endpoints, err := s.client.CoreV1().Endpoints(s.ns).Create(t.Context(), endpoints, metav1.CreateOptions{})
	s.must(err)
	mirrored := func(want string) {
		t.Helper()
		s.eventually("mirrored", func() string {
			list, err := s.client.DiscoveryV1().EndpointSlices(s.ns).List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=custom"})
			s.must(err)
			got := ""
			for _, e := range list.Items {
				got += fmt.Sprintf("%s %d %s %s", e.Endpoints[0].Addresses[0], *e.Ports[0].Port, *e.Ports[0].Name, e.Labels[discoveryv1.LabelManagedBy])
			}
			if got != want {
				return got
			}
			return ""
		})
	}
	mirrored("10.1.2.3 80 example endpointslicemirroring-controller.k8s.io")
	endpoints.Subsets[0].Addresses[0].IP, endpoints.Subsets[0].Ports[0].Port = "10.2.3.4", 9999
	_, err = s.client.CoreV1().Endpoints(s.ns).Update(t.Context(), endpoints, metav1.UpdateOptions{})
	s.must(err)
	mirrored("10.2.3.4 9999 example endpointslicemirroring-controller.k8s.io")
	s.must(s.client.CoreV1().Endpoints(s.ns).Delete(t.Context(), "custom", metav1.DeleteOptions{}))
	mirrored("")
}

// TestKubernetesService: the API server's own Service, its Endpoints and its slice.
func TestKubernetesService(t *testing.T) {
	s := begin(t)
	_, err := s.client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	s.must(err)
	e, err := s.client.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	s.must(err)
	list, err := s.client.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	s.must(err)
	if len(e.Subsets) != 1 || len(list.Items) != 1 || len(e.Subsets[0].Addresses) != len(list.Items[0].Endpoints) || list.Items[0].Endpoints[0].Addresses[0] != e.Subsets[0].Addresses[0].IP {
		t.Fatalf("Endpoints %+v, slices %+v", e.Subsets, list.Items)
	}
	address := net.JoinHostPort(e.Subsets[0].Addresses[0].IP, fmt.Sprint(e.Subsets[0].Ports[0].Port))
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	s.must(err)
	conn.Close()
}

// TestDNS: names of Services, headless ones, pods, hostnames, SRV and PTR, fully and partly qualified, and a pod's own dnsConfig.
func TestDNS(t *testing.T) {
	s := begin(t)
	labels := map[string]string{"dns-test": "true"}
	p := server("backend", labels)
	p.Spec.Hostname, p.Spec.Subdomain = "dns-querier-2", "headless"
	backend := s.run(p)
	s.run(client())
	port := []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}
	s.service("headless", corev1.ServiceSpec{ClusterIP: "None", Selector: labels, Ports: port})
	svc := s.service("normal", corev1.ServiceSpec{Selector: labels, Ports: port})
	resolve := func(name, want string) {
		t.Helper()
		s.says(name, "nslookup -type=a "+name+" | sed -n '/^Name:/,$s/^Address: //p' | tail -1", want)
	}
	full := "." + s.ns + ".svc.cluster.local"
	resolve("kubernetes.default.svc.cluster.local", s.clusterIP("default", "kubernetes"))
	resolve("normal"+full, svc.Spec.ClusterIP)
	resolve("headless"+full, backend.Status.PodIP)
	resolve("dns-querier-2.headless"+full, backend.Status.PodIP)
	resolve(strings.ReplaceAll(backend.Status.PodIP, ".", "-")+"."+s.ns+".pod.cluster.local", backend.Status.PodIP)
	for _, name := range []string{"normal", "normal." + s.ns, "normal." + s.ns + ".svc"} {
		s.reaches(name, "dns-querier-2")
	}
	s.says("SRV", "nslookup -type=srv _http._tcp.normal"+full+" | grep -o 'service = .*'", "service = 0 100 80 normal"+full)
	s.says("PTR", "nslookup "+svc.Spec.ClusterIP+" | grep -o 'name = .*'", "name = normal"+full)
	s.says("PTR of a pod", "nslookup "+backend.Status.PodIP+" | grep -o 'name = dns-querier.*'", "name = dns-querier-2.headless"+full)
	out, err := s.exec("backend", "c", "/agnhost", "args")
	s.must(err)
	s.contains("exec", out, "/agnhost args")
	host := shell("hosts", "hostname -f; cat /etc/hosts")
	host.Spec.Hostname, host.Spec.Subdomain = "dns-querier-1", "headless"
	s.contains("/etc/hosts", s.output(host), "dns-querier-1.headless"+full)
	custom := shell("custom", "cat /etc/resolv.conf")
	custom.Spec.DNSPolicy = corev1.DNSNone
	custom.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"resolv.conf.local"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}}}
	s.contains("resolv.conf", s.output(custom), "nameserver 1.1.1.1\n", "search resolv.conf.local\n", "options ndots:2\n")
}

func (s *spec) clusterIP(ns, name string) string {
	s.Helper()
	svc, err := s.client.CoreV1().Services(ns).Get(s.Context(), name, metav1.GetOptions{})
	s.must(err)
	return svc.Spec.ClusterIP
}

// TestHostPorts: one host port for three pods that differ in address or protocol, each reached; a fourth that conflicts waits.
func TestHostPorts(t *testing.T) {
	s := begin(t)
	const number = 54323
	with := func(name, ip string, protocol corev1.Protocol) *corev1.Pod {
		p := server(name, map[string]string{"app": "hostport"})
		container := int32(8080)
		if protocol == corev1.ProtocolUDP {
			container = 8081
		}
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: number, ContainerPort: container, Protocol: protocol, HostIP: ip}}
		return p
	}
	s.run(with("pod1", "127.0.0.1", corev1.ProtocolTCP))
	s.run(with("pod2", s.c.NodeIP, corev1.ProtocolTCP))
	s.run(with("pod3", s.c.NodeIP, corev1.ProtocolUDP))
	asker := client()
	asker.Spec.HostNetwork = true
	s.run(asker)
	s.reaches(fmt.Sprint("127.0.0.1:", number), "pod1")
	s.reaches(fmt.Sprint(s.c.NodeIP, ":", number), "pod2")
	s.reachesUDP(fmt.Sprint(s.c.NodeIP, ":", number), "pod3")
	s.create(with("pod4", "", corev1.ProtocolTCP))
	p := s.until("pod4", "is not scheduled", func(p *corev1.Pod) bool {
		c := condition(p, corev1.PodScheduled)
		return c != nil && c.Status == corev1.ConditionFalse
	})
	c := condition(p, corev1.PodScheduled)
	s.equal("reason", c.Reason, "Unschedulable")
	s.contains("message", c.Message, "free ports")
}

// TestServiceCollection: a collection of Services is deleted by label; Events and Endpoints tell.
func TestServiceCollection(t *testing.T) {
	s := begin(t)
	for _, name := range []string{"a", "b"} {
		s.service(name, corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}})
	}
	_, err := s.client.CoreV1().Services(s.ns).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	s.must(err)
	s.must(s.any.Resource(gvr("", "v1", "services")).Namespace(s.ns).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "test=" + s.ns}))
	s.eventually("one is left", func() string {
		list, err := s.client.CoreV1().Services(s.ns).List(context.Background(), metav1.ListOptions{})
		s.must(err)
		if len(list.Items) != 1 || list.Items[0].Name != "c" {
			return fmt.Sprint(len(list.Items), " Services")
		}
		return ""
	})
	taken := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "taken"}, Spec: corev1.ServiceSpec{ClusterIP: s.clusterIP(s.ns, "c"), Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := s.client.CoreV1().Services(s.ns).Create(t.Context(), taken, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		text, _ := json.Marshal(err)
		t.Errorf("an address that is taken: %v %s, want Invalid", err, text)
	}
}
