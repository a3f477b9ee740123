package image

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// seenFile remembers which files of a folder were imported, and what they gave.
const seenFile = "imported.json"

type seen struct {
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modTime"`
	IDs     []string  `json:"ids"`
}

// ImportFolder imports every archive in dir (*.tar, *.tar.gz, *.tgz, *.tar.zst)
// and pulls every reference listed in a *.txt file, one a line, # begins a
// comment. Files that were imported before and have not changed are passed over
// while their images are here. A missing folder is empty; a bad file does not
// stop the others, the errors come joined. Images of the folder are pinned, since
// there may be no registry to bring them again, until their file has gone. dir may
// be the store's own.
func (s *Store) ImportFolder(ctx context.Context, dir string) ([]Image, error) {
	ents, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("import images folder: %w", err)
	}
	known := s.readSeen()
	now := map[string]seen{}
	var out []Image
	var errs []error
	for _, e := range ents {
		file := filepath.Join(dir, e.Name())
		st, err := os.Stat(file)
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		if have, ok := known[file]; ok && have.Size == st.Size() && have.ModTime.Equal(st.ModTime()) && s.hasAll(have.IDs) {
			now[file] = have
			continue
		}
		imgs, err := s.importFile(ctx, file)
		out = append(out, imgs...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		var ids []string
		for _, img := range imgs {
			ids = append(ids, img.ID)
		}
		now[file] = seen{st.Size(), st.ModTime(), ids}
	}
	return out, errors.Join(append(errs, s.exchange(known, now))...)
}

// exchange pins the images of now instead of those of before. What is to be let
// go of, and what is about to be pinned, is on record until that is done: an
// image that is pinned and on no record would be for ever. A name that is no
// file's says that an image's file has gone.
func (s *Store) exchange(before, now map[string]seen) error {
	if maps.EqualFunc(before, now, func(a, b seen) bool {
		return a.Size == b.Size && a.ModTime.Equal(b.ModTime) && slices.Equal(a.IDs, b.IDs)
	}) {
		return s.repin(before, now)
	}
	both := maps.Clone(now)
	for name, f := range before {
		both["before "+name] = f
	}
	if err := s.writeSeen(both); err != nil {
		return err
	}
	if err := s.repin(before, now); err != nil {
		return err
	}
	return s.writeSeen(now)
}

// repin pins the images of now and lets go of those that only before had.
func (s *Store) repin(before, now map[string]seen) error {
	pinned := map[string]bool{}
	for _, files := range []map[string]seen{before, now} {
		for name, f := range files {
			for _, id := range f.IDs {
				_, here := now[name]
				pinned[id] = pinned[id] || here
			}
		}
	}
	var errs []error
	for id, pin := range pinned {
		img, err := s.Get(id)
		if err == nil && img.Pinned != pin {
			atLoaded.Reach()
			errs = append(errs, s.SetPinned(id, pin))
			atPinned.Reach()
		}
	}
	return errors.Join(errs...)
}

func (s *Store) importFile(ctx context.Context, file string) ([]Image, error) {
	name := filepath.Base(file)
	archive := false
	for _, ext := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd"} {
		archive = archive || strings.HasSuffix(name, ext)
	}
	list := strings.HasSuffix(name, ".txt")
	if !archive && !list {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if archive {
		return s.Import(ctx, f)
	}
	return s.pullList(ctx, f)
}

func (s *Store) pullList(ctx context.Context, r io.Reader) (out []Image, err error) {
	var errs []error
	for sc := bufio.NewScanner(io.LimitReader(r, 1<<20)); sc.Scan(); {
		line, _, _ := strings.Cut(sc.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		img, err := s.Pull(ctx, line, nil)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, img)
	}
	return out, errors.Join(errs...)
}

func (s *Store) hasAll(ids []string) bool {
	for _, id := range ids {
		if _, err := s.Get(id); err != nil {
			return false
		}
	}
	return len(ids) > 0
}

// readSeen is empty when there is no such file or it cannot be read: then all is
// imported again.
func (s *Store) readSeen() map[string]seen {
	out := map[string]seen{}
	b, err := os.ReadFile(filepath.Join(s.cfg.Root, seenFile))
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Log.Warn("list of imported files not read, importing all again", "err", err)
	}
	return out
}

func (s *Store) writeSeen(now map[string]seen) error {
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	p := filepath.Join(s.cfg.Root, seenFile)
	if err := os.WriteFile(p+".new", b, 0o600); err != nil {
		return fmt.Errorf("import images folder: %w", err)
	}
	return os.Rename(p+".new", p)
}
