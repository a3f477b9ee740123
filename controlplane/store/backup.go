package store

import (
	"crypto/sha256"
	"fmt"
	"io"
)

// Backup writes the database as it is now, in the form of etcd's own snapshots: the file, then its SHA-256. Writes go on meanwhile.
func (s *Store) Backup(w io.Writer) error {
	snap := s.etcd.Server.Backend().Snapshot()
	defer snap.Close()
	hash := sha256.New()
	if _, err := snap.WriteTo(io.MultiWriter(w, hash)); err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	_, err := w.Write(hash.Sum(nil))
	return err
}
