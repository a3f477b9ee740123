package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/volume/mount"
)

// ErrNoQuota means that the filesystem cannot hold a folder to a size.
var ErrNoQuota = errors.New("the filesystem has no project quotas (ext4 with the project feature or XFS, mounted with prjquota)")

var names = regexp.MustCompile(`^pvc-[0-9a-f-]{1,64}$`)

const (
	gone   = "gone-"
	coming = "new-"
)

// Store is the volumes in a folder. Safe for concurrent use.
type Store struct {
	root string
	mu   sync.Mutex
}

// Open returns the volumes in root, which is made if it is missing.
func Open(root string) (*Store, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("local volumes: %w", err)
	}
	return &Store{root: root}, nil
}

// Make makes a volume of that many bytes and returns its path. Idempotent. unheld is why the volume can grow beyond its
// size, nil if it cannot.
func (s *Store) Make(name string, bytes int64, block bool) (path string, unheld, err error) {
	if path, err = s.path(name); err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if block {
		return path, nil, s.image(path, bytes)
	}
	if err := s.folder(path); err != nil {
		return "", nil, fmt.Errorf("local volume: %w", err)
	}
	if err := s.check(path, true); err != nil {
		return "", nil, err
	}
	return path, s.limit(path, bytes), nil
}

// folder makes a volume's folder. One that is there is left as it is: a claim can be seen again when pods have its volume already,
// and have given it a mode and a group of their own.
func (s *Store) folder(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	made := filepath.Join(s.root, coming+filepath.Base(path))
	if err := os.Mkdir(made, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// Any user of a container may write, as with upstream's provisioners of local folders; the way to it is closed.
	if err := os.Chmod(made, 0o777); err != nil {
		return err
	}
	return os.Rename(made, path)
}

// Grow gives a volume more room. It is never made smaller.
func (s *Store) Grow(name string, bytes int64) (unheld, err error) {
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("local volume: %w", err)
	}
	if st.IsDir() {
		return s.limit(path, bytes), nil
	}
	if err := s.image(path, bytes); err != nil {
		return nil, err
	}
	return nil, refresh(path)
}

// Remove deletes a volume. Idempotent; an error means that something is left, for the next call.
func (s *Store) Remove(name string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	away := filepath.Join(s.root, gone+name)
	if err := os.Remove(filepath.Join(s.root, coming+name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("local volume: %w", err)
	}
	// What an earlier call left must go first, or the rename would not work.
	if err := s.wipe(away); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, away, unix.RENAME_NOREPLACE); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("local volume: remove %s: %w", name, err)
	}
	return s.wipe(away)
}

func (s *Store) wipe(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("local volume: %w", err)
	}
	if st.Mode().IsRegular() {
		if err := Detach(path); err != nil {
			return err
		}
	}
	if err := mount.RemoveTree(path); err != nil {
		return fmt.Errorf("local volume: %w", err)
	}
	return nil
}

func (s *Store) path(name string) (string, error) {
	if !names.MatchString(name) {
		return "", fmt.Errorf("local volume: %q is no volume's name", name)
	}
	return filepath.Join(s.root, name), nil
}

// check refuses what somebody put in a volume's place.
func (s *Store) check(path string, dir bool) error {
	st, err := os.Lstat(path)
	if err == nil && (dir && !st.IsDir() || !dir && !st.Mode().IsRegular()) {
		err = fmt.Errorf("%s is something else than this volume", path)
	}
	if err != nil {
		return fmt.Errorf("local volume: %w", err)
	}
	return nil
}

// image makes a sparse disk image of at least that size.
func (s *Store) image(path string, bytes int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("local volume: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is something else than this volume", path)
	}
	if err == nil && st.Size() < bytes {
		err = f.Truncate((bytes + 511) / 512 * 512)
	}
	if err != nil {
		return fmt.Errorf("local volume: %w", err)
	}
	return nil
}

// limit holds a folder to a size by a project of its own.
func (s *Store) limit(path string, bytes int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	id, err := project(f)
	if err != nil {
		return err
	}
	if id == 0 {
		if id, err = s.freeProject(f); err != nil {
			return err
		}
	}
	return hold(f, id, bytes)
}

// freeProject is the lowest project above ours' first that neither a volume nor anybody's files have.
func (s *Store) freeProject(f *os.File) (uint32, error) {
	taken := map[uint32]bool{}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.Contains(e.Name(), "pvc-") {
			continue
		}
		d, err := os.Open(filepath.Join(s.root, e.Name()))
		if err != nil {
			return 0, err
		}
		id, err := project(d)
		d.Close()
		if err != nil {
			return 0, err
		}
		taken[id] = true
	}
	for id := firstProject; ; id++ {
		if taken[id] {
			continue
		}
		used, err := usage(f, id)
		if err != nil {
			return 0, err
		}
		if used == 0 {
			return id, nil
		}
	}
}
