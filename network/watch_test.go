package network

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/network/netfilter/netfiltertest"
)

// ND22: whatever an administrator's script takes from the node's network comes back without a pod's being started anew, and is told of
// by name; what we remove ourselves is not.
func TestHostile_ND22(t *testing.T) {
	told := make(chan string, 100)
	n := node(t, func(c *Config) { c.Repaired = func(parts string) { told <- parts }; c.Spares = 2 })
	a, b := up(t, n, "a"), up(t, n, "b")
	serve(t, a, 80)
	serve(t, b, 80)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Watch(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	podA, gateway, end := a.IPs[0].String(), a.Gateway.String(), n.links.Name(n.entry("a").lease.Slot)
	reached := func() error {
		for _, way := range []struct {
			from *Attachment
			to   string
		}{{&a, b.IPs[0].String()}, {&b, podA}, {nil, podA}} {
			if _, err := ask(t, way.from, way.to+":80"); err != nil {
				return err
			}
		}
		return nil
	}
	for _, row := range []struct{ script, want string }{
		{"ip link del kltest0", "the bridge kltest0"},
		{"ip addr del " + gateway + "/32 dev kltest0", "address " + gateway + " of kltest0"},
		{"ip link set kltest0 down", "the bridge kltest0 (it was turned off)"},
		{"ip route del " + podA, "pod default/a (" + podA + ")"},
		{"ip link set " + end + " down", "pod default/a (" + podA + ")"},
		{"ip link del " + end, "pod default/a (" + podA + ")"},
		{"ip route del unreachable 10.244.0.0/24", "the route of unused addresses of 10.244.0.0/24"},
		{"echo 0 >/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward=1"},
		{"echo 0 >/proc/sys/net/ipv4/conf/" + end + "/forwarding", "pod default/a (" + podA + ")"},
		{"echo 0 >/proc/sys/net/ipv4/conf/" + end + "/route_localnet; echo 2 >/proc/sys/net/ipv4/conf/" + end + "/rp_filter", "pod default/a (" + podA + ")"},
		{"echo 0 >/proc/sys/net/ipv6/conf/kltest0/disable_ipv6", "net.ipv6.conf.kltest0.disable_ipv6=1"},
		{"ip neigh del " + podA + " dev " + end, "pod default/a (" + podA + ")"},
		{"ip neigh replace " + podA + " dev " + end + " lladdr 02:00:00:00:00:09 nud permanent", "pod default/a (" + podA + ")"},
		{"for l in $(ls /sys/class/net | grep ^kltest0-); do ip link del $l; done; ip link del kltest0; ip route flush table main", "the bridge kltest0"},
	} {
		netfiltertest.Run(t, "sh", "-c", row.script)
		select {
		case parts := <-told:
			if !strings.Contains(parts, row.want) {
				t.Errorf("after %q %q was told, want %q in it", row.script, parts, row.want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("after %q nothing came back", row.script)
		}
		// A script may be looked at in the middle: then the rest is told apart.
		var err error
		for range 300 {
			if err = reached(); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond) // between looks
		}
		if err != nil {
			t.Errorf("after %q: %v\n%s", row.script, err, netfiltertest.Run(t, "sh", "-c", "ip addr; ip route"))
		}
		for len(told) > 0 {
			<-told
		}
	}
	// What was told late, of the rest of the last script, comes before this.
	podB := "the link, route or settings of pod default/b (" + b.IPs[0].String() + ")"
	netfiltertest.Run(t, "ip", "route", "del", b.IPs[0].String())
	for parts := ""; parts != podB; {
		select {
		case parts = <-told:
		case <-time.After(30 * time.Second):
			t.Fatal("the route of pod b did not come back")
		}
	}
	// Ours: pods come and go, spares are made. The next thing told is of the next script.
	for i := range 3 {
		id := fmt.Sprint("passing-", i)
		up(t, n, id)
		if err := n.Teardown(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	netfiltertest.Run(t, "ip", "route", "del", podA)
	if parts := <-told; parts != "the link, route or settings of pod default/a ("+podA+")" {
		t.Errorf("told %q after pods came and went", parts)
	}
}
