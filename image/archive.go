package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"keelson.dev/keelson/image/manifest"
	"keelson.dev/keelson/image/unpack"
)

// archive is an image archive whose files were taken into the content store:
// names in the archive lead to blobs, never to paths.
type archive struct {
	store *Store
	files map[string]spooled // by cleaned name
	links map[string]string  // symlinks (docker save points layers at each other)

	releases []func() // of the leases on all blobs
}

func (a *archive) claim(d digest.Digest) {
	a.releases = append(a.releases, a.store.lease(d))
	a.store.settled(d)
}

type spooled struct {
	digest digest.Digest
	size   int64
}

const maxArchiveFiles = 100_000

// spool reads a tar archive (also gzip or zstd) to its end.
func (s *Store) spool(ctx context.Context, r io.Reader) (*archive, error) {
	z, err := unpack.Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("read image archive: %w", err)
	}
	defer z.Close()
	a := &archive{store: s, files: map[string]spooled{}, links: map[string]string{}}
	left := s.cfg.Limits.Bytes
	if left <= 0 {
		left = 64 << 30
	}
	tr := tar.NewReader(z)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return a, context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return a, fmt.Errorf("%w: image archive: %w", ErrInvalidImage, err)
		}
		if n > maxArchiveFiles {
			return a, fmt.Errorf("%w: image archive: more than %d files", ErrLimit, maxArchiveFiles)
		}
		name := path.Clean("/" + hdr.Name)[1:]
		switch hdr.Typeflag {
		case tar.TypeSymlink, tar.TypeLink:
			to := hdr.Linkname
			if hdr.Typeflag == tar.TypeSymlink {
				to = path.Join(path.Dir(name), to)
			}
			a.links[name] = path.Clean("/" + to)[1:]
		case tar.TypeReg:
			if left -= hdr.Size; left < 0 {
				return a, fmt.Errorf("%w: image archive: too many bytes", ErrLimit)
			}
			d, size, err := s.blobs.PutStream(tr, hdr.Size, a.claim)
			if err != nil {
				return a, fmt.Errorf("image archive: %s: %w", name, err)
			}
			a.files[name] = spooled{d, size}
		}
	}
}

// blobs lists what was stored.
func (a *archive) blobs() []digest.Digest {
	var out []digest.Digest
	for _, f := range a.files {
		out = append(out, f.digest)
	}
	return out
}

// file finds a file by its name in the archive, through links.
func (a *archive) file(name string) (spooled, error) {
	name = path.Clean("/" + name)[1:]
	for range 8 {
		if f, ok := a.files[name]; ok {
			return f, nil
		}
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	return spooled{}, fmt.Errorf("%w: image archive: no file %.120q", ErrInvalidImage, name)
}

// json reads a document of the archive.
func (a *archive) json(name string, into any) error {
	f, err := a.file(name)
	if err != nil {
		return err
	}
	b, err := a.store.blobs.Read(f.digest, manifest.MaxBytes)
	if err != nil {
		return fmt.Errorf("image archive: %s: %w", name, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: image archive: %s: %w", ErrInvalidImage, name, err)
	}
	return nil
}

// blob checks that the archive's blob d really is d.
func (a *archive) blob(d digest.Digest) error {
	name := "blobs/" + strings.Replace(string(d), ":", "/", 1)
	f, err := a.file(name)
	if err != nil {
		return err
	}
	if f.digest == d {
		return nil
	}
	if d.Algorithm() == digest.SHA256 {
		return fmt.Errorf("%w: image archive: %s has digest %s", ErrCorrupt, name, f.digest)
	}
	return errors.Join(a.rename(f, d), nil)
}

// rename stores a file under another algorithm's digest, checking it.
func (a *archive) rename(f spooled, d digest.Digest) error {
	in, err := a.store.blobs.Open(f.digest)
	if err != nil {
		return err
	}
	defer in.Close()
	w, err := a.store.blobs.Ingest(d, f.size)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Reset(); err != nil {
		return err
	}
	if _, err := io.Copy(w, in); err != nil {
		return err
	}
	return w.Commit()
}
