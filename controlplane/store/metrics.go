package store

import (
	"context"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	etcd3metrics "k8s.io/apiserver/pkg/storage/etcd3/metrics"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// publishMetrics shows etcd's own metrics (etcd_disk_wal_fsync_duration_seconds, ...) beside the API server's, under the names that
// dashboards and alerts for slow disks know. etcd registers them where the API server does not look.
var publishMetrics = sync.OnceFunc(func() {
	legacyregistry.RawMustRegister(etcdMetrics{})
	legacyregistry.MustRegister(roomGauge, freeGauge)
})

// publishSize shows the size of this store's database (apiserver_storage_size_bytes): of the last one that was opened, as the registry
// of metrics is the process's.
func (s *Store) publishSize() {
	etcd3metrics.Register()
	etcd3metrics.SetStorageMonitorGetter(func() ([]etcd3metrics.Monitor, error) { return []etcd3metrics.Monitor{size{s}}, nil })
}

type size struct{ store *Store }

// Monitor implements etcd3metrics.Monitor.
func (s size) Monitor(context.Context) (etcd3metrics.StorageMetrics, error) {
	return etcd3metrics.StorageMetrics{Size: s.store.etcd.Server.Backend().Size()}, nil
}

// Close implements etcd3metrics.Monitor. The store is closed by who opened it.
func (size) Close() error { return nil }

var (
	roomGauge = metrics.NewGauge(&metrics.GaugeOpts{Name: "keelson_store_room", StabilityLevel: metrics.ALPHA,
		Help: "Room of the database: 0 enough, 1 low (nothing new is made), 2 full (only deletions are accepted)."})
	freeGauge = metrics.NewGauge(&metrics.GaugeOpts{Name: "keelson_store_free_bytes", StabilityLevel: metrics.ALPHA,
		Help: "Bytes left on the disk of the database."})
)

type etcdMetrics struct{}

// Describe implements prometheus.Collector. Which metrics there are is known when they are collected.
func (etcdMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (etcdMetrics) Collect(out chan<- prometheus.Metric) {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return // what could be gathered is incomplete; the next scrape has it
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "etcd_") {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
			}
			out <- gathered{prometheus.NewDesc(f.GetName(), f.GetHelp(), labels, nil), m}
		}
	}
}

// gathered is a metric that has been gathered already.
type gathered struct {
	desc *prometheus.Desc
	m    *dto.Metric
}

func (g gathered) Desc() *prometheus.Desc { return g.desc }

func (g gathered) Write(out *dto.Metric) error {
	out.Label, out.Gauge, out.Counter, out.Summary = g.m.Label, g.m.Gauge, g.m.Counter, g.m.Summary
	out.Untyped, out.Histogram = g.m.Untyped, g.m.Histogram
	return nil
}
