package address

import (
	"context"
	"net/netip"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

const (
	subsystem = "kube_apiserver_clusterip_allocator"
	// static addresses are those that clients chose, dynamic ones those that were chosen here.
	static, dynamic = "static", "dynamic"
)

var (
	allocations = metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: subsystem, Name: "allocation_total", StabilityLevel: metrics.ALPHA,
		Help: "Number of Cluster IPs allocations"}, []string{"cidr", "scope"})
	failures = metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: subsystem, Name: "allocation_errors_total", StabilityLevel: metrics.ALPHA,
		Help: "Number of errors trying to allocate Cluster IPs"}, []string{"cidr", "scope"})
	durations = metrics.NewHistogramVec(&metrics.HistogramOpts{Subsystem: subsystem, Name: "allocation_duration_seconds", StabilityLevel: metrics.ALPHA,
		Help: "Duration in seconds to allocate a Cluster IP by ServiceCIDR", Buckets: metrics.DefBuckets}, []string{"cidr"})
	allocatedDesc = metrics.NewDesc(subsystem+"_allocated_ips", "Gauge measuring the number of allocated IPs for Services", []string{"cidr"}, nil, metrics.ALPHA, "")
	availableDesc = metrics.NewDesc(subsystem+"_available_ips", "Gauge measuring the number of available IPs for Services", []string{"cidr"}, nil, metrics.ALPHA, "")
)

// RegisterMetrics shows what has been given out since this process began.
var RegisterMetrics = sync.OnceFunc(func() { legacyregistry.MustRegister(allocations, failures, durations) })

// observe counts an attempt to take an address of the range.
func observe(prefix netip.Prefix, scope string, since time.Time, err error) {
	if err != nil {
		failures.WithLabelValues(prefix.String(), scope).Inc()
		return
	}
	allocations.WithLabelValues(prefix.String(), scope).Inc()
	durations.WithLabelValues(prefix.String()).Observe(time.Since(since).Seconds())
}

// Describe tells what Collect yields.
func (p Pool) Describe(ch chan<- *metrics.Desc) { ch <- allocatedDesc; ch <- availableDesc }

// Collect yields how full each range is, by the records that there are now.
func (p Pool) Collect(ctx context.Context, ch chan<- metrics.Metric) {
	if p.Records() == nil {
		return
	}
	obj, err := p.Records().List(clusterScope(ctx), &internalversion.ListOptions{ResourceVersion: "0"})
	list, ok := obj.(*networkingv1.IPAddressList)
	if err != nil || !ok {
		return // the next scrape has it
	}
	for _, prefix := range append(p.ranges(ctx, "IPv4"), p.ranges(ctx, "IPv6")...) {
		s, used := spanOf(prefix), uint64(0)
		for _, record := range list.Items {
			if addr, err := netip.ParseAddr(record.Name); err == nil && s.contains(addr) {
				used++
			}
		}
		ch <- metrics.NewLazyConstMetric(allocatedDesc, metrics.GaugeValue, float64(used), prefix.String())
		ch <- metrics.NewLazyConstMetric(availableDesc, metrics.GaugeValue, float64(s.size-used), prefix.String())
	}
}
