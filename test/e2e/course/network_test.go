package course

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestTrafficPolicies: under Local the client's address is kept and only the node with an endpoint answers health checks; affinity keeps a
// client with its pod; two ports of one number differ by protocol.
func TestTrafficPolicies(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: apps/v1
kind: Deployment
metadata: {name: seen}
spec:
  replicas: 3
  selector: {matchLabels: {app: seen}}
  template:
    metadata: {labels: {app: seen}}
    spec: {containers: [{name: c, image: "keelson.dev/hello:v1", imagePullPolicy: IfNotPresent, readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: seen}, ports: [{name: a, port: 80}, {name: b, port: 80, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {sessionAffinity: ClientIP, trafficDistribution: PreferSameNode, selector: {app: seen}, ports: [{port: 80}]}
`)
	s.waitReady("app=seen", 3)
	local := s.service("local")
	for _, address := range []string{s.c.NodeIP, local.Spec.ClusterIP} {
		port := local.Spec.Ports[0].NodePort
		if address == local.Spec.ClusterIP {
			port = 80
		}
		s.eventually("it answers on "+address, func() string {
			if _, err := fetch(t.Context(), fmt.Sprintf("http://%s:%d", address, port)); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	if local.Spec.HealthCheckNodePort == 0 {
		t.Fatalf("no health check port: %+v", local.Spec)
	}
	health := fmt.Sprintf("http://%s:%d/healthz", s.c.NodeIP, local.Spec.HealthCheckNodePort)
	s.eventually("the health check counts the endpoints", func() string {
		body, err := fetch(t.Context(), health)
		if err != nil || !strings.Contains(body, `"localEndpoints":3`) {
			return fmt.Sprint(body, err)
		}
		return ""
	})
	sticky := "http://" + s.service("sticky").Spec.ClusterIP
	s.eventually("the sticky Service answers", func() string {
		if _, err := fetch(t.Context(), sticky); err != nil {
			return err.Error()
		}
		return ""
	})
	pods := map[string]bool{}
	for range 12 {
		body, err := fetch(t.Context(), sticky)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(body, "pod: ")
		pod, _, _ := strings.Cut(rest, "\n")
		pods[pod] = true
	}
	if len(pods) != 1 {
		t.Errorf("one client met %v", pods)
	}
	s.eventually("endpoints are hinted for their node", func() string {
		got := s.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=sticky", "-o", "jsonpath={.items[*].endpoints[*].hints.forNodes[*].name}")
		if got != strings.Join([]string{s.c.NodeName, s.c.NodeName, s.c.NodeName}, " ") {
			return "hints: " + got
		}
		return ""
	})
	s.kubectl("scale", "deployment/seen", "--replicas=0")
	s.eventually("without endpoints the health check says so", func() string {
		answer, err := http.Get(health)
		if err != nil {
			return err.Error()
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusServiceUnavailable {
			return answer.Status
		}
		return ""
	})
}

// TestClientAddressIsKept: a neighbour of the node is seen under its own address by a Service with the Local policy.
func TestClientAddressIsKept(t *testing.T) {
	s := attend(t)
	there := neighbour(t, s.c)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: seen, labels: {app: seen}}
spec: {containers: [{name: c, image: "keelson.dev/hello:v1", imagePullPolicy: IfNotPresent}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: seen}, ports: [{port: 80}]}
`)
	s.until("seen", "the pod is ready", isReady)
	own := s.c.Outside.Addr().Next().Next().String() // .2
	for what, url := range map[string]func() string{
		"the balancer's address": func() string {
			if in := s.service("local").Status.LoadBalancer.Ingress; len(in) == 1 {
				return "http://" + in[0].IP
			}
			return "http://none.invalid"
		},
		"the node port": func() string {
			return fmt.Sprintf("http://%s:%d", s.c.Outside.Addr().Next(), s.service("local").Spec.Ports[0].NodePort)
		},
	} {
		s.eventually(what, func() string {
			out, err := there("curl", "-sS", "--max-time", "3", url())
			if err != nil || !strings.Contains(out, "you: "+own+":") {
				return out
			}
			return ""
		})
	}
	s.keptToItsNode(there)
}

// keptToItsNode: endpoints of another node are none for a Service that keeps what comes from outside, or from within, to the node that
// it came to. They are asked through the pod that is here, of which a slice says that it is elsewhere.
func (s *class) keptToItsNode(there func(args ...string) (string, error)) {
	s.t.Helper()
	slice := func(node string) {
		s.apply(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: by-hand, labels: {kubernetes.io/service-name: by-hand}}
addressType: IPv4
ports: [{port: 80, protocol: TCP}]
endpoints: [{addresses: ["` + s.pod("seen").Status.PodIP + `"], conditions: {ready: true}, nodeName: ` + node + `}]
`)
	}
	s.apply("apiVersion: v1\nkind: Service\nmetadata: {name: by-hand}\nspec: {type: NodePort, ports: [{port: 80}]}\n")
	slice("elsewhere")
	svc := s.service("by-hand")
	here := func(args ...string) (string, error) {
		out, err := exec.CommandContext(s.t.Context(), args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}
	for _, row := range []struct {
		policy, url string
		ask         func(args ...string) (string, error)
	}{
		{"externalTrafficPolicy", fmt.Sprintf("http://%s:%d", s.c.Outside.Addr().Next(), svc.Spec.Ports[0].NodePort), there},
		{"internalTrafficPolicy", "http://" + svc.Spec.ClusterIP, here},
	} {
		answers := func(what string, want bool) {
			s.t.Helper()
			s.eventually(row.policy+" "+what, func() string {
				out, err := row.ask("curl", "-sS", "--max-time", "1", row.url)
				if (err == nil) != want || err != nil && !strings.Contains(out, "timed out") {
					return fmt.Sprintf("%v %s", err, out)
				}
				return ""
			})
		}
		answers("Cluster goes to any node", true)
		s.kubectl("patch", "svc", "by-hand", "-p", `{"spec":{"`+row.policy+`":"Local"}}`)
		answers("Local goes to no other", false)
		slice(s.c.NodeName)
		answers("Local goes to its own", true)
		s.kubectl("patch", "svc", "by-hand", "-p", `{"spec":{"`+row.policy+`":"Cluster"}}`)
		slice("elsewhere")
	}
}

// TestNetworkPolicy: who is let in, and who may go out, from the first packet on; and everybody again without policies.
func TestNetworkPolicy(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {access: "yes"}}}], ports: [{port: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out}
spec: {podSelector: {matchLabels: {app: mute}}, policyTypes: [Egress]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: "keelson.dev/hello:v1", imagePullPolicy: IfNotPresent, readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}}]}
`)
	web := s.until("web", "its own node may ask it", isReady).Status.PodIP
	labelled := func(pod, labels string) string {
		return strings.Replace(pod, "metadata: {", "metadata: {labels: {"+labels+"}, ", 1)
	}
	mute := `for i in 1 2 3; do timeout 2 wget -q -O - http://` + web + ` && echo LEAK; done; echo silent; sleep 3600`
	s.apply(labelled(sleeper("friend", "", ""), `access: "yes"`) + sleeper("stranger", "", "") +
		strings.Replace(labelled(sleeper("mute", "", ""), `access: "yes", app: mute`), `[sleep, "3600"]`, fmt.Sprintf("[sh, -c, %q]", mute), 1))
	for _, name := range []string{"friend", "stranger", "mute"} {
		s.until(name, name+" is ready", isReady)
	}
	ask := func(pod string) error {
		_, errs, err := s.c.Kubectl(t.Context(), "-n", s.ns, "exec", pod, "--", "timeout", "3", "wget", "-q", "-O", "-", "http://"+web)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, errs)
		}
		return err
	}
	s.eventually("the friend is let in", func() string {
		if err := ask("friend"); err != nil {
			return err.Error()
		}
		return ""
	})
	if ask("stranger") == nil {
		t.Error("the stranger is let in")
	}
	s.eventually("the mute one has tried", func() string {
		if out := s.kubectl("logs", "mute"); !strings.HasSuffix(out, "silent\n") {
			return out
		}
		return ""
	})
	if out := s.kubectl("logs", "mute"); strings.Contains(out, "LEAK") || strings.Contains(out, "Hello") {
		t.Errorf("packets of the mute one arrive:\n%s", out)
	}
	s.kubectl("delete", "networkpolicy", "in", "out")
	for _, name := range []string{"stranger", "mute"} {
		s.eventually("without policies "+name+" may ask", func() string {
			if err := ask(name); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

// TestNames: what the cluster's DNS knows, and how a pod asks it.
func TestNames(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Service
metadata: {name: team}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: team}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: virtual}
spec: {selector: {app: team}, ports: [{name: http, port: 80}, {name: names, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alice, labels: {app: team}}
spec:
  hostname: alice
  subdomain: team
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"], readinessProbe: {exec: {command: ["false"]}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: custom}
spec:
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [a.example, b.example], options: [{name: ndots, value: "2"}, {name: edns0}]}
  terminationGracePeriodSeconds: 1
  hostAliases: [{ip: 192.0.2.99, hostnames: [alias.example]}]
  containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: nodes-own}
spec: {dnsPolicy: Default, terminationGracePeriodSeconds: 1, containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"]}]}
`)
	alice := s.until("alice", "alice runs, and is never ready", func(p *corev1.Pod) string {
		if p.Status.Phase != corev1.PodRunning {
			return string(p.Status.Phase)
		}
		return ""
	})
	s.until("custom", "the pod is ready", isReady)
	s.until("nodes-own", "the pod is ready", isReady)
	zone := "." + s.ns + ".svc.cluster.local."
	ip := alice.Status.PodIP
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"team" + zone, dns.TypeA, "A " + ip},
		{"alice.team" + zone, dns.TypeA, "A " + ip},
		{"_http._tcp.team" + zone, dns.TypeSRV, "SRV 0 100 80 alice.team" + zone},
		{"_names._udp.virtual" + zone, dns.TypeSRV, "SRV 0 100 53 virtual" + zone},
		{strings.ReplaceAll(ip, ".", "-") + "." + s.ns + ".pod.cluster.local.", dns.TypeA, "A " + ip},
		{"kubernetes.default.svc.cluster.local.", dns.TypeAAAA, ""},
	} {
		s.eventually(c.name, func() string {
			if got := records(s.ask(c.name, c.typ)); got != c.want {
				return fmt.Sprintf("%q, want %q", got, c.want)
			}
			return ""
		})
	}
	reverse, err := dns.ReverseAddr(ip)
	if err != nil {
		t.Fatal(err)
	}
	s.eventually("who has the address", func() string {
		if got := records(s.ask(reverse, dns.TypePTR)); !strings.Contains(got, "PTR alice.team"+zone) {
			return got
		}
		return ""
	})
	if m := s.ask("nobody"+zone, dns.TypeA); m.Rcode != dns.RcodeNameError || len(m.Ns) != 1 {
		t.Errorf("nobody: %v", m)
	}
	files := s.kubectl("exec", "alice", "--", "sh", "-c", "hostname -f; cat /etc/resolv.conf; nslookup www.google.com; nslookup virtual; true")
	for _, want := range []string{"alice.team." + s.ns + ".svc.cluster.local\n", "search " + s.ns + ".svc.cluster.local svc.cluster.local cluster.local", "ndots:5", outside, s.service("virtual").Spec.ClusterIP} {
		if !strings.Contains(files, want) {
			t.Errorf("a pod's names lack %q:\n%s", want, files)
		}
	}
	files = s.kubectl("exec", "custom", "--", "sh", "-c", "cat /etc/resolv.conf /etc/hosts")
	for _, want := range []string{"nameserver 192.0.2.53", "search a.example b.example", "options ndots:2 edns0", "192.0.2.99\talias.example"} {
		if !strings.Contains(files, want) {
			t.Errorf("the pod with a configuration of its own lacks %q:\n%s", want, files)
		}
	}
	if files = s.kubectl("exec", "nodes-own", "--", "cat", "/etc/resolv.conf"); strings.Contains(files, "cluster.local") || !strings.Contains(files, "nameserver 127.0.0.1:") {
		t.Errorf("the pod with the node's resolver:\n%s", files)
	}
}

// TestDNSSettings: what people change in CoreDNS' ConfigMaps holds here.
func TestDNSSettings(t *testing.T) {
	t.Parallel()
	s := attend(t)
	labtest.Apply(t, s.c, `apiVersion: v1
kind: ConfigMap
metadata: {name: coredns-custom, namespace: kube-system}
data:
  names.override: |
    hosts {
      192.0.2.7 registry.lan
    }
`)
	s.eventually("the name has the address", func() string {
		if got := records(s.ask("registry.lan.", dns.TypeA)); got != "A 192.0.2.7" {
			return got
		}
		return ""
	})
}

// TestProxyAndForward: kubectl proxy, and kubectl port-forward to a Service.
func TestProxyAndForward(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(graceful)
	s.rolledOut("deployment/graceful")
	until := func(cmd *exec.Cmd, mark string) string {
		t.Helper()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, rest, ok := strings.Cut(lines.Text(), mark); ok {
				f := strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == ':' })
				return f[0]
			}
		}
		t.Fatalf("%v ended", cmd.Args)
		return ""
	}
	port := until(s.c.KubectlCommand(t.Context(), "-n", s.ns, "port-forward", "service/graceful", ":80"), "Forwarding from 127.0.0.1:")
	if body, err := fetch(t.Context(), "http://"+net.JoinHostPort("127.0.0.1", port)); err != nil || !strings.Contains(body, "nginx") {
		t.Errorf("port-forward: %q, %v", body, err)
	}
	port = until(s.c.KubectlCommand(t.Context(), "proxy", "--port=0"), "Starting to serve on 127.0.0.1:")
	for _, path := range []string{"/api/v1/namespaces/" + s.ns + "/services/graceful:80/proxy/", "/version"} {
		if body, err := fetch(t.Context(), "http://"+net.JoinHostPort("127.0.0.1", port)+path); err != nil || !strings.Contains(body, "nginx") && !strings.Contains(body, "gitVersion") {
			t.Errorf("proxy %s: %q, %v", path, body, err)
		}
	}
}
