package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Disk says what is wrong with the disk of the database: no room for what is new, or a sync that does not come back while ctx lasts.
// It writes and syncs a small file of its own; one at a time, whoever asks.
func (s *Store) Disk(ctx context.Context) error {
	if s.space.pressure() != roomy {
		return s.space.refusal("what is new")
	}
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
	if err != nil {
		return err
	}
	_, err = f.Write([]byte{0})
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
}
