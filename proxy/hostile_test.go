package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/proxy/model"
	"keelson.dev/keelson/proxy/rules"
)

// NW6: what one changed endpoint costs in the kernel's input does not depend on how many Services there are. How long it takes
// is BenchmarkOneChange's.
func TestHostile_NW6(t *testing.T) {
	sizes := map[int]int{}
	for _, n := range []int{10, 10000} {
		dir := t.TempDir()
		input := filepath.Join(dir, "input")
		script := func(name, body string) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			return path
		}
		// The programs' places are taken by ones that keep what they are told: the diff is ours, and is what is measured.
		f := netfilter.NewIPTables(netfilter.Config{Restore: script("restore", "cat > "+input), Save: script("save", "true")})
		c := rules.Cluster{Pods: netip.MustParsePrefix("10.244.0.0/16")}
		table := rules.NewTable(c)
		port := func(i, last int) model.Port {
			p := model.Port{Key: model.Key{Namespace: "ns", Name: fmt.Sprint(i)}, Proto: "tcp", Port: 80, ClusterIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}
			for e := range 9 {
				p.Internal = append(p.Internal, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), byte(e + 1)}), 80))
			}
			p.Internal = append(p.Internal, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), byte(last)}), 80))
			p.Cluster = p.Internal
			return p
		}
		for i := range n {
			table.Put(fmt.Sprint(i), rules.ForPort(port(i, 100), c))
		}
		for _, last := range []int{100, 101} {
			table.Put("7", rules.ForPort(port(7, last), c))
			if err := f.Apply(t.Context(), netfilter.Service, table.Set()); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(input)
		if err != nil || len(text) == 0 {
			t.Fatalf("the change wrote nothing: %v", err)
		}
		sizes[n] = len(text)
	}
	if sizes[10] != sizes[10000] {
		t.Errorf("one change of ten endpoints is %d bytes among 10 Services and %d among 10,000", sizes[10], sizes[10000])
	}
}
