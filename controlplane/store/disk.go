package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Disk says whether the disk of the database comes back from a sync while ctx lasts. It writes and syncs a small file of its own; one at a
// time, whoever asks. A disk without room is no error here: reads and deletions are served, and a load balancer that took the server
// away would take the way out away with it. Room is told by the metrics keelson_store_room and keelson_store_free_bytes, the log, and
// each refusal.
func (s *Store) Disk(ctx context.Context) error {
	late := func() error { return fmt.Errorf("the disk of %s does not finish a sync: %w", s.dir, ctx.Err()) }
	select {
	case s.probing <- struct{}{}:
	case <-ctx.Done():
		return late()
	}
	done := make(chan error, 1)
	go func() { // ends with the sync; Close waits for it
		done <- syncFile(filepath.Join(s.dir, "disk-probe"))
		<-s.probing
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return late()
	}
}

// syncFile makes a file, syncs it to the disk and removes it.
func syncFile(path string) error {
	f, err := os.Create(path)
	if errors.Is(err, unix.ENOSPC) {
		return nil // there is nothing to sync; see Disk
	}
	if err != nil {
		return err
	}
	if _, err = f.Write([]byte{0}); errors.Is(err, unix.ENOSPC) {
		err = nil
	}
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
}
