package atomicdir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	data    = "..data"
	dataNew = "..data_tmp"
)

// File is the content, permission bits and owner of one file.
type File struct {
	Data []byte
	Mode fs.FileMode
	UID  *int64 // nil: root
}

// Write makes files, by relative path, all that dir shows. prepare, if not nil, is called with the folder of the new
// revision before it is shown (to set its group). It tells whether anything changed; when not, nothing is written.
func Write(dir string, files map[string]File, now time.Time, prepare func(path string) error) (changed bool, err error) {
	for p := range files {
		if err := valid(p); err != nil {
			return false, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, fmt.Errorf("atomicdir: %w", err)
	}
	defer root.Close()
	current, _ := root.Readlink(data) // none yet: ""
	if current != "" && current == path.Base(current) && same(root, current, files) {
		return false, tidy(root, current, files)
	}
	next := now.UTC().Format("..2006_01_02_15_04_05.000000000")
	if err := fill(root, next, files); err != nil {
		return false, errors.Join(err, root.RemoveAll(next))
	}
	if prepare != nil {
		if err := prepare(path.Join(dir, next)); err != nil {
			return false, errors.Join(err, root.RemoveAll(next))
		}
	}
	if err := point(root, next, dataNew); err != nil {
		return false, err
	}
	if err := root.Rename(dataNew, data); err != nil {
		return false, fmt.Errorf("atomicdir: switch %s: %w", dir, err)
	}
	return true, tidy(root, next, files)
}

// valid refuses what could leave the directory or collide with its bookkeeping.
func valid(p string) error {
	if p == "" || path.IsAbs(p) || path.Clean(p) != p || strings.HasPrefix(p, "..") || strings.Contains(p, "\x00") {
		return fmt.Errorf("atomicdir: %q is not a usable file path: want relative, clean, not beginning with '..'", p)
	}
	if len(p) > 4096 {
		return fmt.Errorf("atomicdir: the file path %.40q... is longer than 4096 bytes", p)
	}
	return nil
}

// fill writes one revision. The umask does not count.
func fill(root *os.Root, rev string, files map[string]File) error {
	if err := root.Mkdir(rev, 0o755); err != nil {
		return fmt.Errorf("atomicdir: %w", err)
	}
	if err := root.Chmod(rev, 0o755); err != nil {
		return fmt.Errorf("atomicdir: %w", err)
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		f, name := files[p], path.Join(rev, p)
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			if err := root.MkdirAll(path.Join(rev, d), 0o755); err != nil {
				return fmt.Errorf("atomicdir: %w", err)
			}
			if err := root.Chmod(path.Join(rev, d), 0o755); err != nil {
				return fmt.Errorf("atomicdir: %w", err)
			}
		}
		if err := write(root, name, f); err != nil {
			return fmt.Errorf("atomicdir: write %s: %w", p, err)
		}
	}
	return nil
}

func write(root *os.Root, name string, f File) error {
	h, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer h.Close()
	if _, err := h.Write(f.Data); err != nil {
		return err
	}
	if f.UID != nil {
		if err := h.Chown(int(*f.UID), -1); err != nil {
			return err
		}
	}
	if err := h.Chmod(f.Mode); err != nil {
		return err
	}
	return h.Close()
}

// same tells whether the revision holds exactly files: content and names; modes are as they were written.
func same(root *os.Root, rev string, files map[string]File) bool {
	seen := 0
	err := fs.WalkDir(root.FS(), rev, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, ok := files[strings.TrimPrefix(p, rev+"/")]
		if !ok || !d.Type().IsRegular() {
			return fs.ErrInvalid
		}
		info, err := d.Info()
		if err != nil || info.Size() != int64(len(f.Data)) {
			return fs.ErrInvalid
		}
		got, err := root.ReadFile(p)
		if err != nil || !bytes.Equal(got, f.Data) {
			return fs.ErrInvalid
		}
		seen++
		return nil
	})
	return err == nil && seen == len(files)
}

// point makes name a symlink to target, replacing what is there.
func point(root *os.Root, target, name string) error {
	if old, err := root.Readlink(name); err == nil && old == target {
		return nil
	}
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("atomicdir: %w", err)
	}
	if err := root.Symlink(target, name); err != nil {
		return fmt.Errorf("atomicdir: %w", err)
	}
	return nil
}

// tidy makes the links that users read, then removes links to what is no more and every revision but the current.
func tidy(root *os.Root, current string, files map[string]File) error {
	tops := map[string]bool{}
	for p := range files {
		top, _, _ := strings.Cut(p, "/")
		tops[top] = true
	}
	for top := range tops {
		if err := point(root, path.Join(data, top), top); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("atomicdir: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if tops[name] || name == data || name == current {
			continue
		}
		if target, err := root.Readlink(name); !strings.HasPrefix(name, "..") && (err != nil || !strings.HasPrefix(target, data+"/")) {
			continue // not ours: a container wrote it
		}
		if err := root.RemoveAll(name); err != nil {
			return fmt.Errorf("atomicdir: %w", err)
		}
	}
	return nil
}
