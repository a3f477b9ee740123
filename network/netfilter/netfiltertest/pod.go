package netfiltertest

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Pod is a neighbour of the test's node in a namespace of its own, wired as the network package wires pods: by ip commands, so that
// what is tested is not also the tool.
type Pod struct {
	Addr netip.Addr
	name string
}

// NewPod makes one with the address, reached over a veth called "<name>" on the node. It is gone at the end of the test.
func NewPod(t testing.TB, name, addr string) Pod {
	t.Helper()
	p := Pod{Addr: netip.MustParseAddr(addr), name: fmt.Sprintf("keelson-test-%s", name)}
	Run(t, "ip", "netns", "add", p.name)
	t.Cleanup(func() {
		Run(t, "ip", "link", "del", name)
		Run(t, "ip", "netns", "del", p.name)
	})
	Run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", p.name)
	for _, c := range []string{"link set " + name + " up", "route add " + addr + "/32 dev " + name} {
		Run(t, "ip", strings.Fields(c)...)
	}
	for _, c := range []string{"link set lo up", "addr add " + addr + "/32 dev eth0", "link set eth0 up", "route add 169.254.1.1 dev eth0",
		"route add default via 169.254.1.1"} {
		Run(t, "ip", append([]string{"-n", p.name}, strings.Fields(c)...)...)
	}
	for k, v := range map[string]string{"ipv4/ip_forward": "1", "ipv4/conf/" + name + "/route_localnet": "1", "ipv4/conf/" + name + "/proxy_arp": "1"} {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", k), []byte(v), 0); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// Do runs f in the pod's network.
func (p Pod) Do(f func() error) error {
	ns, err := os.Open("/run/netns/" + p.name)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() { // ends with f; its thread ends with it
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// Serve answers TCP connections and UDP packets on the port with "<pod address> <asker's address>" until the test ends.
func (p Pod) Serve(t testing.TB, port int) {
	t.Helper()
	var l net.Listener
	var pc net.PacketConn
	if err := p.Do(func() (err error) {
		if l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		pc, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); pc.Close() })
	go func() { // ends when l is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			who, _ := netip.ParseAddrPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "%s %s\n", p.Addr, who.Addr())
			c.Close()
		}
	}()
	go func() { // ends when pc is closed
		b := make([]byte, 100)
		for {
			_, who, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			at, _ := netip.ParseAddrPort(who.String())
			fmt.Fprintf(writer{pc, who}, "%s %s\n", p.Addr, at.Addr())
		}
	}()
}

type writer struct {
	pc net.PacketConn
	to net.Addr
}

func (w writer) Write(b []byte) (int, error) { return w.pc.WriteTo(b, w.to) }

// Ask connects to addr, from the pod or, when p is nil, from the node, and returns who answered and which source it saw.
func Ask(p *Pod, proto, addr string) (server, seen string, err error) {
	f := func() error {
		c, err := net.DialTimeout(proto+"4", addr, 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		server, seen, err = AskOn(c)
		return err
	}
	if p == nil {
		return server, seen, f()
	}
	err = p.Do(f)
	return server, seen, err
}

// AskOn asks on a connection that is open.
func AskOn(c net.Conn) (server, seen string, err error) {
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if c.RemoteAddr().Network() == "udp" {
		if _, err := fmt.Fprint(c, "?"); err != nil {
			return "", "", err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", "", err
	}
	server, seen, _ = strings.Cut(strings.TrimSpace(line), " ")
	return server, seen, nil
}
