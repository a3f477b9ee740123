package nodeport

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

const (
	subsystem = "kube_apiserver_nodeport_allocator"
	// static ports are those that clients chose, dynamic ones those that were chosen here.
	static, dynamic = "static", "dynamic"
)

var (
	allocations = metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: subsystem, Name: "allocation_total", StabilityLevel: metrics.ALPHA,
		Help: "Number of NodePort allocations"}, []string{"scope"})
	failures = metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: subsystem, Name: "allocation_errors_total", StabilityLevel: metrics.ALPHA,
		Help: "Number of errors trying to allocate NodePort"}, []string{"scope"})
	allocatedDesc = metrics.NewDesc(subsystem+"_allocated_ports", "Gauge measuring the number of allocated NodePorts for Services", nil, nil, metrics.ALPHA, "")
	availableDesc = metrics.NewDesc(subsystem+"_available_ports", "Gauge measuring the number of available NodePorts for Services", nil, nil, metrics.ALPHA, "")
)

// RegisterMetrics shows what has been given out since this process began.
var RegisterMetrics = sync.OnceFunc(func() { legacyregistry.MustRegister(allocations, failures) })

// observe counts a request by what it asked for. One that is refused gets nothing of it.
func observe(r Request, err error) {
	count := allocations
	if err != nil {
		count = failures
	}
	if len(r.Ports) > 0 {
		count.WithLabelValues(static).Add(float64(len(r.Ports)))
	}
	if r.Any > 0 {
		count.WithLabelValues(dynamic).Add(float64(r.Any))
	}
}

// Describe tells what Collect yields.
func (l Ledger) Describe(ch chan<- *metrics.Desc) { ch <- allocatedDesc; ch <- availableDesc }

// Collect yields how many ports the record has now.
func (l Ledger) Collect(ctx context.Context, ch chan<- metrics.Metric) {
	record := &corev1.RangeAllocation{}
	if err := l.Storage.Get(ctx, l.Key, storage.GetOptions{IgnoreNotFound: true}, record); err != nil {
		return // the next scrape has it
	}
	taken, err := decode(record)
	if err != nil {
		return
	}
	ch <- metrics.NewLazyConstMetric(allocatedDesc, metrics.GaugeValue, float64(len(taken)))
	ch <- metrics.NewLazyConstMetric(availableDesc, metrics.GaugeValue, float64(l.Range.Size-len(taken)))
}
