package store

import (
	"testing"

	"k8s.io/component-base/metrics/legacyregistry"
)

// What shows a slow disk is among the metrics that the API server serves, with values, once.
func TestDiskMetrics(t *testing.T) {
	s := open(t, t.TempDir())
	fill(t, configMaps(t, s), 3, 10)
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "etcd_disk_wal_fsync_duration_seconds" {
			if n := f.GetMetric()[0].GetHistogram().GetSampleCount(); len(f.GetMetric()) != 1 || n == 0 {
				t.Errorf("%d metrics, %d samples", len(f.GetMetric()), n)
			}
			return
		}
	}
	t.Error("etcd_disk_wal_fsync_duration_seconds is not served")
}

// The size of the database is served in the name that a dashboard of any cluster asks for.
func TestSizeMetric(t *testing.T) {
	s := open(t, t.TempDir())
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "apiserver_storage_size_bytes" {
			got, want := f.GetMetric()[0].GetGauge().GetValue(), s.etcd.Server.Backend().Size()
			if got == 0 || got > float64(want) {
				t.Errorf("size %v, the database has %d", got, want)
			}
			return
		}
	}
	t.Error("apiserver_storage_size_bytes is not served")
}
