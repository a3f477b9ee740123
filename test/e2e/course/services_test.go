package course

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// hostnames are servers that answer with their hostname, on port 80, for the Services of lessons 07 and 08.
const hostnames = `apiVersion: apps/v1
kind: Deployment
metadata: {name: hostname-server}
spec:
  replicas: 2
  selector: {matchLabels: {app: hostname-server}}
  template:
    metadata: {labels: {app: hostname-server}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: httpd
          image: busybox:1.28
          command: ["sh", "-c", "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"]
          readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
`

// kubectlLater is for cleanups, when the test's context has ended.
func (s *class) kubectlLater(args ...string) {
	if out, errs, err := s.c.Kubectl(context.Background(), args...); err != nil {
		s.t.Errorf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
}

// TestLesson07ClusterIP: virtual IP inside the cluster, port 8080 to targetPort 80.
func TestLesson07ClusterIP(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(hostnames)
	s.apply(s.lesson("07-service-clusterip.yaml"))
	pods := s.waitReady("app=hostname-server", 2)
	ip := s.service("clusterip-hostname-service").Spec.ClusterIP
	seen := s.everyone("http://"+net.JoinHostPort(ip, "8080"), 2) // from the node
	for _, p := range pods {
		if seen[p.Name] == 0 {
			t.Errorf("%s never answered: %v", p.Name, seen)
		}
	}
	s.eventually("the cluster's DNS knows it", func() string {
		if got := records(s.ask("clusterip-hostname-service."+s.ns+".svc.cluster.local.", dns.TypeA)); got != "A "+ip {
			return fmt.Sprintf("DNS says %q, want %s", got, ip)
		}
		return ""
	})
	// From a pod, by name, and also from the pods to themselves.
	for _, name := range []string{"clusterip-hostname-service", "clusterip-hostname-service." + s.ns, "clusterip-hostname-service." + s.ns + ".svc.cluster.local"} {
		if got := strings.TrimSpace(s.kubectl("exec", pods[0].Name, "--", "wget", "-q", "-O", "-", "http://"+name+":8080")); seen[got] == 0 {
			t.Errorf("a pod asks %s and gets %q", name, got)
		}
	}
	if _, err := fetch(t.Context(), "http://"+net.JoinHostPort(ip, "80")); err == nil {
		t.Error("port 80, which the Service has not, answers")
	}
	s.kubectl("scale", "deployment/hostname-server", "--replicas=0")
	s.eventually("without endpoints it refuses at once", func() string {
		_, err := fetch(t.Context(), "http://"+net.JoinHostPort(ip, "8080"))
		if err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Sprint(err)
		}
		return ""
	})
}

// TestLesson08NodePort: every node answers on 30080.
func TestLesson08NodePort(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(hostnames)
	manifest := s.lesson("08-service-nodeport.yaml")
	port := int32(30080)
	// Another server on this machine that runs the lesson has the port in its rules.
	if out, err := exec.CommandContext(t.Context(), "iptables-save", "-t", "nat").Output(); err != nil {
		t.Fatal(err)
	} else if strings.Contains(string(out), "--dport 30080 ") {
		manifest = strings.ReplaceAll(manifest, "      nodePort: 30080\n", "")
		port = 0
	}
	s.apply(manifest)
	s.waitReady("app=hostname-server", 2)
	got := s.service("nodeport-hostname-service").Spec.Ports[0].NodePort
	if port != 0 && got != port {
		t.Fatalf("the node port is %d, want %d", got, port)
	}
	// On every address of the node.
	for _, address := range []string{s.c.NodeIP, bridgeAddress(t, s)} {
		s.everyone(fmt.Sprintf("http://%s", net.JoinHostPort(address, fmt.Sprint(got))), 2)
	}
	labtest.Refused(t, s.c, strings.NewReplacer("30080", "29999", "nodeport-hostname-service", "too-low").Replace(s.lesson("08-service-nodeport.yaml")), "-n", s.ns, "apply", "-f", "-")
}

// bridgeAddress is the node's address on the pods' bridge: what a pod calls its node.
func bridgeAddress(t *testing.T, s *class) string {
	t.Helper()
	pod := s.pods("")[0]
	out := s.kubectl("exec", pod.Name, "--", "sh", "-c", "ip route | awk '/default/ {print $3}'")
	address := strings.TrimSpace(out)
	if net.ParseIP(address) == nil {
		t.Fatalf("the pod's default route: %q", out)
	}
	return address
}

// helloNode are the servers behind lesson 09.
var helloNode = strings.NewReplacer("hostname-server", "hello-node", "-p 80", "-p 8080", "port: 80", "port: 8080").Replace(hostnames)

// TestLesson09LoadBalancer: outside a cloud it behaves like a NodePort.
func TestLesson09LoadBalancer(t *testing.T) {
	t.Parallel()
	s := attend(t)
	// Of a class that nobody here serves: as on a server without --load-balancer-range.
	s.apply(strings.ReplaceAll(s.lesson("09-service-loadbalancer.yaml"), "type: LoadBalancer", "type: LoadBalancer\n  loadBalancerClass: example.com/none"))
	s.apply(helloNode)
	s.waitReady("app=hello-node", 2)
	svc := s.service("hello-node-svc")
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.Spec.Ports[0].NodePort == 0 {
		t.Fatalf("%+v", svc.Spec)
	}
	s.everyone(fmt.Sprintf("http://%s", net.JoinHostPort(s.c.NodeIP, fmt.Sprint(svc.Spec.Ports[0].NodePort))), 2)
	s.everyone(fmt.Sprintf("http://%s", net.JoinHostPort(svc.Spec.ClusterIP, "80")), 2)
	if out := s.kubectl("get", "svc", "hello-node-svc"); !strings.Contains(out, "<pending>") {
		t.Errorf("no balancer, and yet:\n%s", out)
	}
}

// neighbour is a machine on the server's outside network: a network namespace and a link. It returns how to run a program there.
func neighbour(t *testing.T, c *lab.Cluster) func(args ...string) (string, error) {
	t.Helper()
	a := c.Outside.Addr().As4()
	ns, link := fmt.Sprintf("keelson-lab-%d", a[2]), fmt.Sprintf("klan%d", a[2])
	node, own := fmt.Sprintf("198.18.%d.1/24", a[2]), fmt.Sprintf("198.18.%d.2/24", a[2])
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(context.Background(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	ip("netns", "add", ns)
	t.Cleanup(func() { ip("netns", "del", ns) }) // and the link with it
	ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", ns)
	ip("addr", "add", node, "dev", link)
	ip("link", "set", link, "up")
	ip("-n", ns, "link", "set", "lo", "up")
	ip("-n", ns, "addr", "add", own, "dev", "eth0")
	ip("-n", ns, "link", "set", "eth0", "up")
	return func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "ip", append([]string{"netns", "exec", ns}, args...)...).CombinedOutput()
		return string(out), err
	}
}

// TestLesson09BuiltInBalancer: the built-in balancer serves it, for a machine that shares nothing with the node but a wire.
func TestLesson09BuiltInBalancer(t *testing.T) {
	t.Parallel()
	s := attend(t)
	there := neighbour(t, s.c)
	s.apply(s.lesson("09-service-loadbalancer.yaml"))
	s.apply(helloNode)
	pods := s.waitReady("app=hello-node", 2)
	var address string
	s.eventually("an address is assigned", func() string {
		in := s.service("hello-node-svc").Status.LoadBalancer.Ingress
		if len(in) != 1 || in[0].IP == "" || in[0].IPMode == nil || *in[0].IPMode != corev1.LoadBalancerIPModeVIP {
			return fmt.Sprintf("%+v", in)
		}
		address = in[0].IP
		return ""
	})
	curl := func() (string, error) {
		out, err := there("curl", "-sS", "--max-time", "5", "http://"+address+"/")
		return strings.TrimSpace(out), err
	}
	s.eventually("both pods answer the neighbour", func() string {
		seen := map[string]bool{}
		for range 20 {
			out, err := curl()
			if err != nil {
				return out
			}
			seen[out] = true
		}
		if !seen[pods[0].Name] || !seen[pods[1].Name] {
			return fmt.Sprint(seen)
		}
		return ""
	})
	// A pod reaches the address as well; a port that the Service has not is closed.
	if got := strings.TrimSpace(s.kubectl("exec", pods[0].Name, "--", "wget", "-q", "-O", "-", "http://"+address)); !strings.HasPrefix(got, "hello-node-") {
		t.Errorf("a pod gets %q", got)
	}
	if out, err := there("curl", "-sS", "--max-time", "5", "http://"+address+":81/"); err == nil || !strings.Contains(out, "Connection refused") && !strings.Contains(out, "Couldn't connect") && !strings.Contains(out, "unreachable") {
		t.Errorf("port 81: %v %s", err, out)
	}
	// Only the named networks are let in.
	s.kubectl("patch", "svc", "hello-node-svc", "-p", `{"spec":{"loadBalancerSourceRanges":["203.0.113.0/24"]}}`)
	s.eventually("a stranger's packets are dropped", func() string {
		if out, err := curl(); err == nil {
			return out
		}
		return ""
	})
	s.kubectl("patch", "svc", "hello-node-svc", "-p", `{"spec":{"loadBalancerSourceRanges":["`+s.c.Outside.String()+`"]}}`)
	s.eventually("a known network is let in", func() string {
		if out, err := curl(); err != nil {
			return out
		}
		return ""
	})
	// A machine that takes the address for its own, and says so, is told of on the Service.
	claim := "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; ip addr add " + address + "/32 dev eth0; ip link set eth0 down; ip link set eth0 up; sleep 0.2; ip addr del " + address + "/32 dev eth0"
	s.eventually("the conflict is told", func() string {
		if out := s.kubectl("get", "events", "--field-selector", "reason=AddressConflict,involvedObject.name=hello-node-svc", "-o", "jsonpath={.items[*].message}"); strings.Contains(out, address) {
			return ""
		}
		out, err := there("sh", "-c", claim)
		return fmt.Sprintf("no event; claimed again: %v %s", err, out)
	})
	s.kubectl("delete", "svc", "hello-node-svc")
	s.eventually("the address is let go", func() string {
		if out, err := curl(); err == nil {
			return out
		}
		return ""
	})
}

// TestLesson10ExternalName: the cluster DNS answers a CNAME.
func TestLesson10ExternalName(t *testing.T) {
	t.Parallel()
	s := attend(t)
	labtest.Apply(t, s.c, s.lesson("10-service-externalname.yaml"))
	s.eventually("the CNAME and where it leads", func() string {
		if got := records(s.ask("my-service.prod.svc.cluster.local.", dns.TypeA)); got != "CNAME www.google.com., A "+outside {
			return got
		}
		return ""
	})
	if got := records(s.ask("my-service.prod.svc.cluster.local.", dns.TypeCNAME)); got != "CNAME www.google.com." {
		t.Errorf("asked for the CNAME alone: %q", got)
	}
}
