package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What readyz says of the disk: well; without room; and with a sync that does not come back.
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
	s.space.quota = 1
	s.space.measure()
	if err := s.Disk(t.Context()); err == nil || !strings.Contains(err.Error(), "free space there or delete objects") {
		t.Errorf("no room: %v", err)
	}
}
