package stats

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"keelson.dev/keelson/volume"
)

// volumes are a pod's entries of /stats/summary, by name.
func volumes(namespace string, measured []volume.Measurement) []api.VolumeStats {
	var out []api.VolumeStats
	for _, m := range measured {
		v := api.VolumeStats{Name: m.Volume, FsStats: api.FsStats{Time: metav1.NewTime(m.At), CapacityBytes: m.Capacity, AvailableBytes: m.Available,
			UsedBytes: m.Used, Inodes: m.Inodes, InodesFree: m.InodesFree, InodesUsed: m.InodesUsed}}
		if m.Claim != "" {
			v.PVCRef = &api.PVCReference{Name: m.Claim, Namespace: namespace}
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b api.VolumeStats) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// claims collects the series kubelet_volume_stats_* of the page /metrics.
type claims struct{ s *Source }

// Claims collects what the volumes behind claims hold, for the page /metrics.
func (s *Source) Claims() prometheus.Collector { return claims{s} }

// Describe implements prometheus.Collector.
func (claims) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. A claim that several pods use is told once.
func (c claims) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	measured, out, seen := c.s.measure(ctx), &metrics{ch: ch}, map[[2]string]bool{}
	for _, p := range c.s.cfg.Pods() {
		for _, m := range measured[p.UID] {
			if key := [2]string{p.Namespace, m.Claim}; m.Claim == "" || seen[key] {
				continue
			} else {
				seen[key] = true
			}
			l := labels{"namespace": p.Namespace, "persistentvolumeclaim": m.Claim}
			for _, one := range []struct {
				name, help string
				value      *uint64
			}{
				{"capacity_bytes", "Capacity in bytes of the volume", m.Capacity},
				{"available_bytes", "Number of available bytes in the volume", m.Available},
				{"used_bytes", "Number of used bytes in the volume", m.Used},
				{"inodes", "Maximum number of inodes in the volume", m.Inodes},
				{"inodes_free", "Number of free inodes in the volume", m.InodesFree},
				{"inodes_used", "Number of used inodes in the volume", m.InodesUsed},
			} {
				if one.value != nil {
					out.gauge("kubelet_volume_stats_"+one.name, one.help, float64(*one.value), time.Time{}, l)
				}
			}
		}
	}
}
