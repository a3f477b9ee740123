package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/network/netfilter/netfiltertest"
	"keelson.dev/keelson/proxy/model"
	"keelson.dev/keelson/proxy/rules"
)

// One endpoint changes among many Services of ten endpoints, in the real kernel.
func BenchmarkOneChange(b *testing.B) {
	netfiltertest.Need(b, "iptables-restore")
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			c := rules.Cluster{Pods: netip.MustParsePrefix("10.244.0.0/16")}
			f := netfilter.NewIPTables(netfilter.Config{})
			defer f.Clear(context.Background())
			t := rules.NewTable(c)
			port := func(i, seed int) model.Port {
				p := model.Port{Key: model.Key{Namespace: "ns", Name: fmt.Sprint(i)}, Proto: "tcp", Port: 80,
					ClusterIP: netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)})}
				for e := range 10 {
					p.Internal = append(p.Internal, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), byte(seed*20 + e + 1)}), 80))
				}
				p.Cluster = p.Internal
				return p
			}
			for i := range n {
				t.Put(fmt.Sprint(i), rules.ForPort(port(i, 0), c))
			}
			start := time.Now()
			if err := f.Apply(b.Context(), netfilter.Service, t.Set()); err != nil {
				b.Fatal(err)
			}
			first, i := time.Since(start), 0
			for b.Loop() {
				i++
				t.Put("7", rules.ForPort(port(7, i%10), c))
				if err := f.Apply(b.Context(), netfilter.Service, t.Set()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(first.Milliseconds()), "ms/first")
		})
	}
}
