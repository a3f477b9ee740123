package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// File is where the record lives: a directory, and the boot it was opened in.
type File struct {
	dir  string
	boot string // kernel boot id, the same until the machine restarts
}

const (
	durableName = "images.json"
	maxLedger   = 256 << 20 // bytes
)

// NewFile prepares for reading and writing the record in dir.
func NewFile(dir string) (*File, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("image ledger: %w", err)
	}
	return &File{dir: dir, boot: strings.TrimSpace(string(b))}, nil
}

func (f *File) bootName() string { return "images-" + f.boot + ".json" }

// Load reads the newest record that can be trusted, and removes those of other
// boots. synced is false when it is the boot's own, which may be ahead of the disk.
// A record that cannot be read is set aside and the next best taken, at last an
// empty one: s is usable whenever it is not nil, and err then says what was lost.
func (f *File) Load() (s *State, synced bool, err error) {
	if err := f.dropOthers(); err != nil {
		return nil, false, err
	}
	s, err = f.read(f.bootName())
	if err == nil {
		return s, false, nil
	}
	spoilt := f.setAside(f.bootName(), err)
	s, err = f.read(durableName)
	if err != nil {
		s, spoilt = New(), errors.Join(spoilt, f.setAside(durableName, err))
	}
	return s, true, spoilt
}

// setAside moves a record that cannot be read out of the way, for a person to
// look at, and says so. A missing one is none.
func (f *File) setAside(name string, why error) error {
	if errors.Is(why, fs.ErrNotExist) {
		return nil
	}
	p := filepath.Join(f.dir, name)
	if err := os.Rename(p, p+".bad"); err != nil {
		return errors.Join(why, err)
	}
	return fmt.Errorf("%w (kept as %s.bad)", why, p)
}

func (f *File) read(name string) (*State, error) {
	p := filepath.Join(f.dir, name)
	st, err := os.Stat(p)
	if err != nil {
		return nil, fmt.Errorf("read image ledger: %w", err)
	}
	if st.Size() > maxLedger {
		return nil, fmt.Errorf("read image ledger %s: %d bytes are too many", p, st.Size())
	}
	b, err := os.ReadFile(p)
	if err != nil {
		return nil, fmt.Errorf("read image ledger: %w", err)
	}
	s := New()
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read image ledger %s: %w", p, err)
	}
	if s.Version != version {
		return nil, fmt.Errorf("read image ledger %s: version %d, this program knows %d", p, s.Version, version)
	}
	for id, img := range s.Images {
		if img == nil {
			delete(s.Images, id)
		}
	}
	for id, l := range s.Layers {
		if l == nil || l.Dir == "" || strings.ContainsAny(l.Dir, "/.") {
			delete(s.Layers, id)
		}
	}
	return s, nil
}

func (f *File) dropOthers() error {
	ents, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("image ledger: %w", err)
	}
	for _, e := range ents {
		n := e.Name()
		if strings.HasPrefix(n, "images") && n != durableName && n != f.bootName() && (strings.HasSuffix(n, ".json") || strings.HasSuffix(n, ".new")) {
			if err := os.Remove(filepath.Join(f.dir, n)); err != nil {
				return fmt.Errorf("image ledger: %w", err)
			}
		}
	}
	return nil
}

// Save writes the record so that it survives the process, not a power cut.
func (f *File) Save(s *State) error { return f.write(f.bootName(), s, false) }

// SaveDurable writes the record so that it survives a power cut. Everything that
// it lists must be on disk already, and what it no longer lists still be there.
func (f *File) SaveDurable(s *State) error { return f.write(durableName, s, true) }

func (f *File) write(name string, s *State, sync bool) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write image ledger: %w", err)
	}
	p := filepath.Join(f.dir, name)
	tmp, err := os.OpenFile(p+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write image ledger: %w", err)
	}
	_, err = tmp.Write(b)
	if err == nil && sync {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		atWritten.Reach()
		err = os.Rename(p+".new", p)
		atRenamed.Reach()
	}
	if err == nil && sync {
		err = syncDir(f.dir)
		atDurable.Reach()
	}
	if err != nil {
		return fmt.Errorf("write image ledger: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
