package snapshot

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	etcdsnapshot "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// kept are the files of a server's directory that go along. What is missing is left out.
var kept = []string{"pki", "db/secrets.key"}

const suffix = ".snapshot"

// Source is what is saved.
type Source struct {
	Dir     string             // the server's data directory
	Backup  func(string) error // writes the database into a new file
	Version string
	Now     func() time.Time
}

// Save writes a snapshot into dir (made 0700) and returns its path. A snapshot that is not whole is removed.
func Save(ctx context.Context, src Source, dir string) (file string, m Manifest, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", m, fmt.Errorf("make snapshot directory: %w", err)
	}
	work, err := os.MkdirTemp(dir, ".saving-")
	if err != nil {
		return "", m, err
	}
	defer os.RemoveAll(work)
	m = Manifest{Format: format, Taken: src.Now().UTC().Truncate(time.Second), Version: src.Version}
	if m.Cluster, err = cluster(src.Dir); err != nil {
		return "", m, err
	}
	db := filepath.Join(work, dbName)
	if err := src.Backup(db); err != nil {
		return "", m, err
	}
	if err := ctx.Err(); err != nil {
		return "", m, err
	}
	status, err := etcdsnapshot.NewV3(zap.NewNop()).Status(db)
	if err != nil {
		return "", m, fmt.Errorf("the copied database does not hold: %w", err)
	}
	m.Revision, m.Keys = status.Revision, status.TotalKey
	whole := filepath.Join(work, "whole")
	if err := writeFile(whole, func(w io.Writer) error { return pack(w, os.DirFS(work), os.DirFS(src.Dir), m) }); err != nil {
		return "", m, err
	}
	if m, err = Verify(whole); err != nil {
		return "", m, err
	}
	file = filepath.Join(dir, fmt.Sprintf("keelson-%s-r%d%s", m.Taken.Format("20060102T150405Z"), m.Revision, suffix))
	if err := os.Rename(whole, file); err != nil {
		return "", m, err
	}
	return file, m, syncDir(dir)
}

// cluster identifies a cluster by its certificate authority.
func cluster(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "pki", "ca.crt"))
	if err != nil {
		return "", fmt.Errorf("certificate authority of the cluster: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

func pack(out io.Writer, work, dir fs.FS, m Manifest) error {
	w := &writer{tar: tar.NewWriter(out), entries: map[string]string{}}
	if err := w.addFile(dbName, work, dbName); err != nil {
		return err
	}
	for _, top := range kept {
		err := fs.WalkDir(dir, top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			return w.addFile(filesPrefix+path, dir, path)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return w.close(m)
}

// writeFile writes a new file (0600) and syncs it.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// List returns the paths of the snapshots in dir, the newest first. No directory is no snapshot.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), "keelson-") && strings.HasSuffix(e.Name(), suffix) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(files) // names begin with the time
	slices.Reverse(files)
	return files, nil
}

// Prune removes all but the newest snapshots, and what interrupted saves left.
func Prune(dir string, keep int) error {
	files, err := List(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files[min(max(keep, 1), len(files)):] {
		errs = append(errs, os.Remove(f))
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".saving-*"))
	for _, d := range left {
		errs = append(errs, os.RemoveAll(d))
	}
	return errors.Join(errs...)
}

// Due tells how long to wait for the next scheduled save: an interval after the newest snapshot, or `first` if there is none.
func Due(newest string, now time.Time, interval, first time.Duration) time.Duration {
	stamp := strings.TrimPrefix(filepath.Base(newest), "keelson-")
	if i := strings.IndexByte(stamp, '-'); i > 0 {
		if taken, err := time.Parse("20060102T150405Z", stamp[:i]); err == nil && !taken.After(now) {
			return max(0, taken.Add(interval).Sub(now))
		}
	}
	return first
}
