package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"
)

// copyBatch is how many bytes are put into a copy at a time.
const copyBatch = 4 << 20

// Backup writes the database as it is now into a new file (0600), in the form of etcd's own snapshots: the database without its free
// pages, then its SHA-256. Writes go on meanwhile. The caller owns the file and syncs it.
func (s *Store) Backup(path string) error {
	b := s.etcd.Server.Backend()
	db, err := database(b)
	if err != nil {
		return err
	}
	b.ForceCommit()
	if err := compacted(db, path); err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	if err == nil {
		_, err = f.Write(hash.Sum(nil))
	}
	return errors.Join(err, f.Close())
}

// compacted copies what a database holds into a new file.
func compacted(db *bolt.DB, path string) error {
	to, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true, OpenFile: exclusive})
	if err != nil {
		return err
	}
	err = bolt.Compact(to, db, copyBatch)
	var size int64 // the file is made longer in large steps
	if err == nil {
		err = to.View(func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return os.Truncate(path, size)
}

// exclusive opens a file that must be new.
func exclusive(path string, flag int, mode os.FileMode) (*os.File, error) {
	return os.OpenFile(path, flag|os.O_EXCL, mode)
}
