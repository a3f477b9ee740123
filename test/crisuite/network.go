package crisuite

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var networkSpecs = []Spec{
	{"pods reach each other, and a host port reaches its pod", true, podNetwork},
	{"DNS configuration is written as given", true, dnsConfig},
	{"sysctls of the pod", true, podSysctls},
	{"port-forward, of pod and of node network", true, portForward},
	{"TestHostile_CR15: port-forward to a closed port, many at once, half closed", true, portForwardHostile},
}

// httpd says up when it listens: in the background, it binds before it forks.
const httpd = `mkdir -p /w; echo page-$(hostname) > /w/index.html; httpd -p 8080 -h /w && echo up; exec sleep 100000`

func (b *Bench) ip(pod string) string {
	b.Helper()
	resp, err := b.PodSandboxStatus(b.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil {
		b.Fatal(err)
	}
	return resp.GetStatus().GetNetwork().GetIp()
}

// freePort is one that was free a moment ago.
func freePort(b *Bench) int32 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return int32(l.Addr().(*net.TCPAddr).Port)
}

// page fetches a page, waiting for its server to listen.
func (b *Bench) page(addr string) string {
	b.Helper()
	var text string
	b.eventually("an answer of "+addr, func() bool {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			b.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		text = string(got)
		return err == nil
	})
	return text
}

func podNetwork(b *Bench) {
	port := freePort(b)
	sc := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) {
		c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 8080, HostPort: port}, {ContainerPort: 1}}
	})
	server := b.RunPod(sc)
	id := b.StartIn(server, sc, b.ContainerConfig(httpd))
	b.awaitLog(id, "up")
	ip := b.ip(server)
	if got := b.page(net.JoinHostPort(ip, "8080")); got != "page-suite-host\n" {
		b.Errorf("from the node: %q", got)
	}
	if got := b.page(fmt.Sprintf("127.0.0.1:%d", port)); got != "page-suite-host\n" {
		b.Errorf("by the host port: %q", got)
	}
	cc := b.PodConfig()
	client := b.StartIn(b.RunPod(cc), cc, b.ContainerConfig("exec sleep 1000"))
	if got := b.Sh(client, "wget -qO- http://"+ip+":8080/"); got != "page-suite-host\n" {
		b.Errorf("from another pod: %q", got)
	}
}

func dnsConfig(b *Bench) {
	pc := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) {
		c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.9.8.7", "fd00::7"}, Searches: []string{"a.b", "c"}, Options: []string{"ndots:5"}}
	})
	id := b.StartIn(b.RunPod(pc), pc, b.ContainerConfig("exec sleep 1000"))
	if got, want := b.Sh(id, "cat /etc/resolv.conf"), "search a.b c\nnameserver 10.9.8.7\nnameserver fd00::7\noptions ndots:5\n"; got != want {
		b.Errorf("resolv.conf %q, want %q", got, want)
	}
	if got := b.Sh(id, "cat /etc/hosts"); !strings.Contains(got, "localhost") || !strings.Contains(got, "suite-host") {
		b.Errorf("hosts %q", got)
	}
	if got := b.Sh(id, "cat /etc/hostname"); got != "suite-host\n" {
		b.Errorf("hostname %q", got)
	}
}

func podSysctls(b *Bench) {
	pc := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "81", "kernel.shm_rmid_forced": "1", "kernel/msgmax": "9000"}
	})
	id := b.StartIn(b.RunPod(pc), pc, b.ContainerConfig("exec sleep 1000"))
	got := b.Sh(id, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax")
	if got != "81\n1\n9000\n" {
		b.Errorf("sysctls %q", got)
	}
}

func (b *Bench) dialer(pod string, port int32) httpstream.Dialer {
	b.Helper()
	resp, err := b.PortForward(b.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: pod, Port: []int32{port}})
	if err != nil {
		b.Fatal(err)
	}
	u, err := url.Parse(resp.GetUrl())
	if err != nil {
		b.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		b.Fatal(err)
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
}

// forward opens a local port to a pod's and gives it, with kubectl's own client.
func (b *Bench) forward(pod string, port int32) string {
	b.Helper()
	stop, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	fw, err := portforward.New(b.dialer(pod, port), []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	go func() { ended <- fw.ForwardPorts() }() // ends when stop is closed
	b.Cleanup(func() { close(stop); <-ended })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		b.Fatal(err)
	}
	ports, err := fw.GetPorts()
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local)
}

func portForward(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig(httpd))
	b.awaitLog(id, "up")
	if got := b.page(b.forward(pod, 8080)); got != "page-suite-host\n" {
		b.Errorf("got %q", got)
	}
	hc := b.PodConfig(HostNetwork)
	host := b.RunPod(hc)
	port := freePort(b)
	b.awaitLog(b.StartIn(host, hc, b.ContainerConfig(strings.ReplaceAll(httpd, "8080", fmt.Sprint(port)))), "up")
	if got := b.page(b.forward(host, port)); !strings.HasPrefix(got, "page-") {
		b.Errorf("of the node's network: %q", got)
	}
}

// forwardError gives what a client reads from the error stream of a connection.
func (b *Bench) forwardError(pod string, port int32) string {
	b.Helper()
	dialer := b.dialer(pod, port)
	conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	header := http.Header{"Streamtype": {"error"}, "Port": {fmt.Sprint(port)}, "Requestid": {"0"}}
	told, err := conn.CreateStream(header)
	if err != nil {
		b.Fatal(err)
	}
	_ = told.Close() // we write nothing to it
	header.Set("streamType", "data")
	if _, err := conn.CreateStream(header); err != nil {
		b.Fatal(err)
	}
	text, err := io.ReadAll(told)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

func portForwardHostile(b *Bench) {
	pc := b.PodConfig()
	if got := b.forwardError(b.RunPod(pc), 1); !strings.Contains(got, "refused") || !strings.Contains(got, "port 1 ") {
		b.Errorf("of a closed port the client is told %q", got)
	}

	// A pod of the node's network reaches a server of the test's own, which can
	// take a thousand at once. It answers when the client has closed its side.
	port := echoAtEnd(b)
	addr := b.forward(b.RunPod(b.PodConfig(HostNetwork)), port)
	echo := func(text string) (string, error) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			return "", err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return "", err
		}
		got, err := io.ReadAll(c)
		return string(got), err
	}
	before := descriptorCount(b)
	var wg sync.WaitGroup
	for n := range 1000 {
		wg.Go(func() {
			text := fmt.Sprintf("half-%d", n)
			if got, err := echo(text); err != nil || got != "got "+text {
				b.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	b.eventually("descriptors to be given back", func() bool { return descriptorCount(b) <= before+8 })
}

// echoAtEnd answers each connection with what it read, once that has ended.
func echoAtEnd(b *Bench) int32 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	b.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				text, _ := io.ReadAll(c)
				fmt.Fprintf(c, "got %s", text)
			})
		}
	})
	return int32(l.Addr().(*net.TCPAddr).Port)
}

// descriptorCount is of this process, which is the server too when the node runs
// in it.
func descriptorCount(b *Bench) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		b.Fatal(err)
	}
	return len(list)
}
