package snapshot

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	etcdsnapshot "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/version"
)

// Bump is added to the revision of a restored database. It must exceed the writes made between snapshot and restore.
const Bump = 1_000_000_000

// Options of Restore.
type Options struct {
	Dir     string // the server's data directory; its parent must exist
	Version string // of this keelson
	// Force replaces the data of another cluster, and accepts a snapshot of a newer version.
	Force bool
	Now   time.Time
}

// Restore makes dir what the snapshot says. It returns where the data that was there is kept, empty if there was none.
// The server must not run. Whatever ends Restore, dir is the old tree or the new one.
func Restore(file string, o Options) (old string, m Manifest, err error) {
	if m, err = Verify(file); err != nil {
		return "", m, err
	}
	have, err := cluster(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", m, err
	}
	if err := acceptable(m, have, o); err != nil {
		return "", m, fmt.Errorf("%s: %w", file, err)
	}
	fresh := o.Dir + ".restoring"
	if err := os.RemoveAll(fresh); err != nil {
		return "", m, err
	}
	if err := build(file, fresh); err != nil {
		return "", m, errors.Join(err, os.RemoveAll(fresh))
	}
	if _, err := os.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) {
		return "", m, errors.Join(os.Rename(fresh, o.Dir), syncDir(filepath.Dir(o.Dir)))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, o.Dir, unix.RENAME_EXCHANGE); err != nil {
		return "", m, errors.Join(fmt.Errorf("put the restored data in place of %s: %w", o.Dir, err), os.RemoveAll(fresh))
	}
	old = fmt.Sprintf("%s.before-restore-%s", o.Dir, o.Now.UTC().Format("20060102T150405Z"))
	return old, m, errors.Join(os.Rename(fresh, old), syncDir(filepath.Dir(o.Dir)))
}

// acceptable refuses what is whole but not meant for this place.
func acceptable(m Manifest, have string, o Options) error {
	if o.Force {
		return nil
	}
	if have != "" && have != m.Cluster {
		return fmt.Errorf("it is of another cluster than %s (certificate authority %.12s, here %.12s); --force replaces this cluster by that one", o.Dir, m.Cluster, have)
	}
	theirs, err := version.ParseSemantic(m.Version)
	if err != nil {
		return fmt.Errorf("%w: version %q", ErrInvalid, m.Version)
	}
	ours, err := version.ParseSemantic(o.Version)
	if err == nil && (theirs.Major() > ours.Major() || theirs.Major() == ours.Major() && theirs.Minor() > ours.Minor()) {
		return fmt.Errorf("it was taken by %s, this is %s: an older version may not understand it; use the newer one, or --force", m.Version, o.Version)
	}
	return nil
}

// build makes the new tree at dir, on disk.
func build(file, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := read(f, func(name string, r io.Reader) error { return extract(root, name, r) }); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	db := filepath.Join(dir, "db", "snapshot")
	const peer = "http://127.0.0.1:2380" // what a member that is alone advertises
	err = etcdsnapshot.NewV3(zap.NewNop()).Restore(etcdsnapshot.RestoreConfig{
		SnapshotPath: db, Name: "keelson", OutputDataDir: filepath.Join(dir, "db", "etcd"), PeerURLs: []string{peer},
		InitialCluster: "keelson=" + peer, InitialClusterToken: "restored-" + rand.Text(), RevisionBump: Bump, MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("build the database: %w", err)
	}
	if err := os.Remove(db); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

func extract(root *os.Root, name string, r io.Reader) error {
	target := "db/snapshot"
	if rest, ok := strings.CutPrefix(name, filesPrefix); ok {
		target = rest
	}
	if err := root.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}
