package content

import (
	"context"
	_ "crypto/sha512" // makes sha512 digests known
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("blob not found")
	ErrCorrupt  = errors.New("blob is corrupt") // size or digest differ from what was promised
)

// Store is a directory of blobs.
type Store struct{ dir string }

// Open makes the directories, 0700: blobs hold set-uid programs and private data.
// One process has the directory at a time.
func Open(dir string) (*Store, error) {
	for _, d := range []string{"blobs/sha256", "blobs/sha512", "ingest"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	// What a PutStream that was killed left; it has no digest to be found by.
	streams, err := filepath.Glob(filepath.Join(dir, "ingest", "stream-*"))
	for _, p := range streams {
		err = errors.Join(err, os.Remove(p))
	}
	if err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	return &Store{dir: dir}, nil
}

// path needs a valid digest: the hex part becomes a file name. An invalid one
// gives a name that cannot exist.
func (s *Store) path(d digest.Digest) string {
	if d.Validate() != nil {
		return filepath.Join(s.dir, "blobs", "invalid")
	}
	return filepath.Join(s.dir, "blobs", string(d.Algorithm()), d.Encoded())
}

func (s *Store) ingestPath(d digest.Digest) string {
	a, hex, _ := strings.Cut(string(d), ":")
	return filepath.Join(s.dir, "ingest", a+"-"+hex)
}

// Size tells a stored blob's length in bytes; ErrNotFound if there is none.
func (s *Store) Size(d digest.Digest) (int64, error) {
	st, err := os.Stat(s.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s", ErrNotFound, d)
	}
	if err != nil {
		return 0, fmt.Errorf("stat blob %s: %w", d, err)
	}
	return st.Size(), nil
}

// Open gives the blob's file, unchecked: the caller verifies what it reads.
func (s *Store) Open(d digest.Digest) (*os.File, error) {
	f, err := os.Open(s.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, d)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", d, err)
	}
	return f, nil
}

// Read returns a small blob (at most limit bytes), digest checked. A corrupt one
// is dropped, so that the next pull fetches it again; the error wraps ErrCorrupt.
func (s *Store) Read(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read blob %s: larger than %d bytes", d, limit)
	}
	if got := d.Algorithm().FromBytes(b); got != d {
		return nil, errors.Join(fmt.Errorf("%w: %s on disk has digest %s", ErrCorrupt, d, got), s.Drop(d))
	}
	return b, nil
}

// Put stores b, which must have digest d. Several may store the same blob at once (a manifest is fetched for each of its
// names), so each writes a file of its own.
func (s *Store) Put(d digest.Digest, b []byte) error {
	if _, err := s.Size(d); err == nil {
		return nil
	}
	if d.Validate() != nil || d.Algorithm().FromBytes(b) != d {
		return fmt.Errorf("%w: what was sent is not %s", ErrCorrupt, d)
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, "ingest"), "stream-*")
	if err != nil {
		return fmt.Errorf("store blob %s: %w", d, err)
	}
	defer os.Remove(f.Name()) // not there any more when all went well
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("store blob %s: %w", d, err)
	}
	if err := os.Rename(f.Name(), s.path(d)); err != nil {
		return fmt.Errorf("store blob %s: %w", d, err)
	}
	return nil
}

// PutStream stores whatever r has, at most limit bytes, under its sha256. More is
// an error and nothing stays. claim is told the digest before the blob appears.
func (s *Store) PutStream(r io.Reader, limit int64, claim func(digest.Digest)) (digest.Digest, int64, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "ingest"), "stream-*")
	if err != nil {
		return "", 0, fmt.Errorf("store blob: %w", err)
	}
	defer os.Remove(f.Name()) // not there any more when all went well
	defer f.Close()
	h := digest.SHA256.Hash()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, limit+1))
	if err != nil {
		return "", 0, fmt.Errorf("store blob: %w", err)
	}
	if n > limit {
		return "", 0, fmt.Errorf("store blob: more than %d bytes", limit)
	}
	d := digest.NewDigest(digest.SHA256, h)
	claim(d)
	atStreamed.Reach()
	if err := os.Rename(f.Name(), s.path(d)); err != nil {
		return "", 0, fmt.Errorf("store blob: %w", err)
	}
	return d, n, nil
}

// Drop removes a blob and whatever has arrived of it. Idempotent.
func (s *Store) Drop(d digest.Digest) error {
	if d.Validate() != nil {
		return nil
	}
	for _, p := range []string{s.path(d), s.ingestPath(d)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("drop blob %s: %w", d, err)
		}
		atDropped.Reach()
	}
	return nil
}

// Stale lists blobs and partial blobs last written before, and removes leftovers
// of PutStream as old as that.
func (s *Store) Stale(before time.Time) ([]digest.Digest, error) {
	var old []digest.Digest
	err := s.Each(func(d digest.Digest, _ int64, partial bool) {
		p := s.path(d)
		if partial {
			p = s.ingestPath(d)
		}
		st, err := os.Stat(p)
		if err != nil || !st.ModTime().Before(before) {
			return
		}
		if d.Validate() == nil {
			old = append(old, d)
		} else if err := os.Remove(p); err != nil {
			return // the next time
		}
	})
	return old, err
}

// Verify reads the whole blob and compares its digest; the error wraps
// ErrNotFound or ErrCorrupt. It removes nothing.
func (s *Store) Verify(ctx context.Context, d digest.Digest) error {
	f, err := s.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	h := d.Algorithm().Hash()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("verify blob %s: %w", d, context.Cause(ctx))
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("verify blob %s: %w", d, err)
		}
	}
	if got := digest.NewDigest(d.Algorithm(), h); got != d {
		return fmt.Errorf("%w: %s on disk has digest %s", ErrCorrupt, d, got)
	}
	return nil
}

// Each calls fn for every stored blob with its length in bytes, and with
// partial=true for those still arriving.
func (s *Store) Each(fn func(d digest.Digest, size int64, partial bool)) error {
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		if err := eachFile(filepath.Join(s.dir, "blobs", string(a)), func(name string, size int64) {
			fn(digest.NewDigestFromEncoded(a, name), size, false)
		}); err != nil {
			return err
		}
	}
	return eachFile(filepath.Join(s.dir, "ingest"), func(name string, size int64) {
		a, hex, _ := strings.Cut(name, "-")
		fn(digest.NewDigestFromEncoded(digest.Algorithm(a), hex), size, true)
	})
}

func eachFile(dir string, fn func(name string, size int64)) error {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}
	for _, e := range ents {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			fn(e.Name(), info.Size())
		}
	}
	return nil
}
