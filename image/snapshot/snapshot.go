package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/image/unpack"
)

// Store is a directory of layers and of mounts made of them.
type Store struct {
	dir  string
	log  *slog.Logger
	seq  atomic.Uint64 // names in trash/ and of drafts
	bin  chan struct{} // wakes the janitor
	stop chan struct{}
	wg   sync.WaitGroup
	// inOneString: this kernel (before 6.7) does not take layers one by one.
	inOneString atomic.Bool
}

// Open makes the directories and starts the janitor. Root and containers/ can be
// passed through (0711): a container in a user namespace must reach its rootfs;
// what lies in them cannot.
func Open(dir string, log *slog.Logger) (*Store, error) {
	for name, mode := range map[string]os.FileMode{"": 0o711, "layers": 0o700, "containers": 0o711, "views": 0o711, "trash": 0o700} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(p, mode); err != nil {
			return nil, fmt.Errorf("open layer store: %w", err)
		}
		if err := os.Chmod(p, mode); err != nil {
			return nil, fmt.Errorf("open layer store: %w", err)
		}
	}
	s := &Store{dir: dir, log: log, bin: make(chan struct{}, 1), stop: make(chan struct{})}
	s.bin <- struct{}{} // what an earlier run left
	if err := s.usable(); err != nil {
		return nil, fmt.Errorf("%s is on a filesystem that cannot hold containers' files: %w: put the data on ext4, xfs or btrfs (--data-dir)", dir, err)
	}
	s.wg.Go(s.janitor)
	return s, nil
}

// usable mounts what every container needs, once: overlayfs does not take each filesystem for its upper layer, itself among them.
func (s *Store) usable() error {
	base := filepath.Join(s.dir, "probe", "container")
	root := filepath.Join(base, "rootfs")
	_ = unix.Unmount(root, unix.MNT_DETACH) // of a run that was killed
	for _, name := range []string{"upper", "work", "rootfs"} {
		if err := os.MkdirAll(filepath.Join(base, name), 0o700); err != nil {
			return err
		}
	}
	switch err := s.overlay(base, Record{}); {
	case errors.Is(err, fs.ErrPermission): // without root nothing is mounted anyway
	case err != nil:
		return errors.Join(err, s.discard(filepath.Dir(base)))
	default:
		if err := unix.Unmount(root, 0); err != nil {
			return err
		}
	}
	return s.discard(filepath.Dir(base))
}

// Close stops the janitor; mounts stay.
func (s *Store) Close() {
	close(s.stop)
	s.wg.Wait()
}

// Draft is a layer being unpacked.
type Draft struct {
	Dir   *os.File // empty at first, 0755 root:root
	store *Store
	path  string
}

// Draft makes an empty layer directory that nobody sees.
func (s *Store) Draft() (*Draft, error) {
	p := filepath.Join(s.dir, "layers", "draft-"+strconv.FormatUint(s.seq.Add(1), 36))
	if err := os.Mkdir(p, 0o755); err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	atDraft.Reach()
	f, err := os.OpenFile(p, unix.O_DIRECTORY|os.O_RDONLY, 0)
	if err == nil {
		err = f.Chmod(0o755)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make layer: %w", err), os.Remove(p))
	}
	return &Draft{Dir: f, store: s, path: p}, nil
}

// Commit names the layer; nothing may be written to it afterwards. A directory
// of that name from an earlier crash is replaced.
func (d *Draft) Commit(name string) error {
	to := filepath.Join(d.store.dir, "layers", name)
	if err := d.store.discard(to); err != nil {
		return err
	}
	d.Dir.Close()
	if err := os.Rename(d.path, to); err != nil {
		return fmt.Errorf("commit layer: %w", err)
	}
	d.path = ""
	atCommitted.Reach()
	return nil
}

// Abort removes the draft unless it was committed. Idempotent.
func (d *Draft) Abort() {
	d.Dir.Close()
	if d.path == "" {
		return
	}
	if err := d.store.discard(d.path); err != nil {
		d.store.log.Warn("layer draft not removed", "err", err)
	}
	d.path = ""
}

// Layer opens a committed layer's directory.
func (s *Store) Layer(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "layers", name), unix.O_DIRECTORY|os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	return f, nil
}

// RemoveLayer makes the layer unusable at once; its disk space follows soon.
// Idempotent. The caller knows that nothing mounts it.
func (s *Store) RemoveLayer(name string) error {
	return s.discard(filepath.Join(s.dir, "layers", name))
}

// discard moves p into trash/ and wakes the janitor. A missing p is fine.
func (s *Store) discard(p string) error {
	for {
		to := filepath.Join(s.dir, "trash", strconv.FormatUint(s.seq.Add(1), 36))
		err := unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		switch {
		case err == nil:
			atDiscarded.Reach()
			select {
			case s.bin <- struct{}{}:
			default: // it is awake
			}
			return nil
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case errors.Is(err, fs.ErrExist):
			continue
		}
		return fmt.Errorf("remove %s: %w", p, err)
	}
}

// janitor empties trash/ whenever something was put there.
func (s *Store) janitor() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.bin:
		}
		ents, err := os.ReadDir(filepath.Join(s.dir, "trash"))
		if err != nil {
			s.log.Warn("trash not listed", "err", err)
			continue
		}
		for _, e := range ents {
			select {
			case <-s.stop:
				return
			default:
			}
			if err := os.RemoveAll(filepath.Join(s.dir, "trash", e.Name())); err != nil {
				s.log.Warn("trash not removed", "err", err)
			}
			atEmptied.Reach()
		}
	}
}

// Sync waits until everything on the store's filesystem is on disk: one syncfs
// for all files of an image.
func (s *Store) Sync() error {
	f, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	return nil
}

// Usage counts a container's writable layer, in bytes of disk blocks and inodes.
func (s *Store) Usage(ctx context.Context, id string) (bytes, inodes uint64, err error) {
	if err := checkID(id); err != nil {
		return 0, 0, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "containers", id, "upper"), unix.O_DIRECTORY|os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, fmt.Errorf("%w: container %s", ErrNotMounted, id)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("usage of container %s: %w", id, err)
	}
	defer f.Close()
	return unpack.Usage(ctx, int(f.Fd()))
}

// ErrNotMounted is wrapped by errors about a container or view without mount.
var ErrNotMounted = errors.New("not mounted")

// checkID keeps ids usable as one path component.
func checkID(id string) error {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if id == "" || len(id) > 128 || id[0] == '.' || strings.ContainsFunc(id, bad) {
		return fmt.Errorf("mount id %.140q: want 1 to 128 of A-Z a-z 0-9 - _ . and no leading dot", id)
	}
	return nil
}
