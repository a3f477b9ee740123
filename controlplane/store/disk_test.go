package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/component-base/metrics/legacyregistry"
)

// What readyz says of the disk: well, and with a sync that does not come back. Without room it is for a metric to say.
func TestDisk(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Disk(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "disk-probe")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the probe's file stays: %v", err)
	}
	s.probing <- struct{}{} // as if one were going on
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Disk(ctx); err == nil || !strings.Contains(err.Error(), "does not finish a sync") {
		t.Errorf("a hung disk: %v", err)
	}
	<-s.probing
	s.space.fixed = true
	s.space.quota.Store(1)
	s.space.measure()
	if err := s.Disk(t.Context()); err != nil {
		t.Errorf("a full database is still to be asked: %v", err)
	}
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "keelson_store_room" && f.GetMetric()[0].GetGauge().GetValue() == float64(full) {
			return
		}
	}
	t.Error("no metric says that it is full")
}
