package snapshot

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

const (
	format       = 1
	manifestName = "manifest.json"
	dbName       = "db"
	filesPrefix  = "files/"
	// manifestLimit bounds what is read into memory of a file that may be anything.
	manifestLimit = 1 << 20
)

// Manifest is what a snapshot says of itself.
type Manifest struct {
	Format   int       `json:"format"`
	Taken    time.Time `json:"taken"`
	Version  string    `json:"version"`  // of keelson that took it
	Cluster  string    `json:"cluster"`  // SHA-256 of the certificate authority
	Revision int64     `json:"revision"` // of the database
	Keys     int       `json:"keys"`
	// Entries are the SHA-256 of all other entries, in hexadecimal.
	Entries map[string]string `json:"entries"`
}

// ErrInvalid is returned (wrapped) for a file that is not a whole, unchanged snapshot.
var ErrInvalid = errors.New("not a valid snapshot")

// writer adds entries and hashes them.
type writer struct {
	tar     *tar.Writer
	entries map[string]string
}

func (w *writer) add(name string, size int64, r io.Reader) error {
	if err := w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w.tar, hash), r); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	w.entries[name] = hex.EncodeToString(hash.Sum(nil))
	return nil
}

func (w *writer) addFile(name string, root fs.FS, from string) error {
	f, err := root.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return w.add(name, st.Size(), f)
}

func (w *writer) close(m Manifest) error {
	m.Entries = w.entries
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(w.add(manifestName, int64(len(b)), strings.NewReader(string(b))), w.tar.Close())
}

// read walks a snapshot to its end, hands each entry to take (which reads what it wants of it) and verifies the hashes. Only a nil
// error makes true what take has seen.
func read(r io.Reader, take func(name string, r io.Reader) error) (Manifest, error) {
	var m Manifest
	found := map[string]string{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return m, errors.Join(fmt.Errorf("%w: it ends without a manifest: the copy is cut off", ErrInvalid))
		}
		if err != nil {
			return m, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if h.Typeflag != tar.TypeReg || !allowed(h.Name) || found[h.Name] != "" {
			return m, fmt.Errorf("%w: unexpected entry %q", ErrInvalid, h.Name)
		}
		if h.Name == manifestName {
			return m, readManifest(t, &m, found)
		}
		hash := sha256.New()
		tee := io.TeeReader(t, hash)
		if err := take(h.Name, tee); err != nil {
			return m, fmt.Errorf("%w: %s: %w", ErrInvalid, h.Name, err)
		}
		if _, err := io.Copy(io.Discard, tee); err != nil {
			return m, fmt.Errorf("%w: %s: %w", ErrInvalid, h.Name, err)
		}
		found[h.Name] = hex.EncodeToString(hash.Sum(nil))
	}
}

func readManifest(r io.Reader, m *Manifest, found map[string]string) error {
	b, err := io.ReadAll(io.LimitReader(r, manifestLimit))
	if err == nil {
		err = json.Unmarshal(b, m)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: manifest: %w", ErrInvalid, err)
	case m.Format != format:
		return fmt.Errorf("%w: format %d, this keelson reads %d: use the version that took it (%s)", ErrInvalid, m.Format, format, m.Version)
	case found[dbName] == "" || len(found) != len(m.Entries):
		return fmt.Errorf("%w: it does not have the entries of its manifest", ErrInvalid)
	}
	for name, want := range m.Entries {
		if found[name] != want {
			return fmt.Errorf("%w: %s is not what was saved (SHA-256 differs)", ErrInvalid, name)
		}
	}
	return nil
}

// allowed are the names that a snapshot may have: nothing in it chooses a place outside of the new tree.
func allowed(name string) bool {
	if name == dbName || name == manifestName {
		return true
	}
	rest, ok := strings.CutPrefix(name, filesPrefix)
	return ok && fs.ValidPath(rest) && path.Clean(rest) == rest && rest != "." && !strings.HasPrefix(rest, "db/etcd")
}

// Verify reads a whole snapshot and returns what it is, or why it cannot be believed.
func Verify(file string) (Manifest, error) {
	f, err := os.Open(file)
	if err != nil {
		return Manifest{}, err
	}
	defer f.Close()
	m, err := read(f, func(string, io.Reader) error { return nil })
	if err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}
