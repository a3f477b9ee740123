package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"keelson.dev/keelson/image/manifest"
	"keelson.dev/keelson/image/reference"
)

const annotationName = "io.containerd.image.name" // the full reference; containerd, Docker and buildx write it

// Import reads an archive of images, an OCI layout or what "docker save" writes,
// plain or compressed with gzip or zstd, and stores its images for this platform
// under the names that it gives them. Everything is checked as in a pull. On an
// error the images imported before it stay and are returned.
func (s *Store) Import(ctx context.Context, r io.Reader) ([]Image, error) {
	end, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	a, err := s.spool(ctx, r)
	if a == nil {
		return nil, err
	}
	defer func() {
		for _, f := range a.releases {
			f()
		}
		// What no image took.
		if err := s.collect(a.blobs()); err != nil {
			s.cfg.Log.Warn("import left something behind", "err", err)
		}
	}()
	if err != nil {
		return nil, err
	}
	atSpooled.Reach()
	found, err := a.images()
	if err != nil {
		return nil, err
	}
	var out []Image
	for _, f := range found {
		id, err := s.importOne(ctx, a, f)
		if err != nil {
			return out, fmt.Errorf("import image %s: %w", f, err)
		}
		img, err := s.Get(string(id))
		if err != nil {
			return out, err
		}
		out = append(out, img)
	}
	return out, nil
}

// candidate is an image that an archive offers.
type candidate struct {
	target v1.Descriptor
	names  []reference.Reference
	digest bool // target's digest is the archive's own, not of a manifest made here
}

func (c candidate) String() string {
	if len(c.names) > 0 {
		return c.names[0].String()
	}
	return string(c.target.Digest)
}

// images finds what the archive offers: by index.json, else by manifest.json.
func (a *archive) images() ([]candidate, error) {
	if _, err := a.file("index.json"); err != nil {
		return a.dockerImages()
	}
	var ix v1.Index
	if err := a.json("index.json", &ix); err != nil {
		return nil, err
	}
	var out []candidate
	for _, d := range ix.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		c := candidate{target: v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, digest: true}
		for _, key := range []string{annotationName, v1.AnnotationRefName} {
			// A bare tag, which layouts of other tools have, names no repository.
			if ref, err := reference.Parse(d.Annotations[key]); err == nil && (key == annotationName || bytes.ContainsAny([]byte(d.Annotations[key]), ":/")) {
				c.names = append(c.names, ref)
				break
			}
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: image archive: index.json lists no image", ErrInvalidImage)
	}
	return out, nil
}

// dockerImages reads manifest.json and makes a manifest for each of its images.
func (a *archive) dockerImages() ([]candidate, error) {
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := a.json("manifest.json", &list); err != nil {
		return nil, fmt.Errorf("neither an OCI layout nor a docker archive: %w", err)
	}
	var out []candidate
	for _, item := range list {
		config, err := a.file(item.Config)
		if err != nil {
			return nil, err
		}
		m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: config.digest, Size: config.size}}
		for _, l := range item.Layers {
			f, err := a.file(l)
			if err != nil {
				return nil, err
			}
			// The type is of the archive's files; unpacking looks at the bytes.
			m.Layers = append(m.Layers, v1.Descriptor{MediaType: a.layerType(f), Digest: f.digest, Size: f.size})
		}
		b, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		d := digest.FromBytes(b)
		a.claim(d)
		if err := a.store.blobs.Put(d, b); err != nil {
			return nil, err
		}
		a.files["made/"+d.Encoded()] = spooled{d, int64(len(b))}
		c := candidate{target: v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: d, Size: int64(len(b))}}
		for _, t := range item.RepoTags {
			ref, err := reference.Parse(t)
			if err != nil {
				return nil, err
			}
			c.names = append(c.names, ref)
		}
		out = append(out, c)
	}
	return out, nil
}

func (a *archive) layerType(f spooled) string {
	in, err := a.store.blobs.Open(f.digest)
	if err != nil {
		return v1.MediaTypeImageLayer
	}
	defer in.Close()
	var head [4]byte
	io.ReadFull(in, head[:]) // a short file is no layer; unpacking says so
	switch {
	case bytes.HasPrefix(head[:], []byte{0x1f, 0x8b}):
		return v1.MediaTypeImageLayerGzip
	case bytes.Equal(head[:], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return v1.MediaTypeImageLayerZstd
	}
	return v1.MediaTypeImageLayer
}

// importOne takes the way of a pull, with the archive as the registry.
func (s *Store) importOne(ctx context.Context, a *archive, c candidate) (digest.Digest, error) {
	p := puller{store: s, repo: archiveSource{a}}
	defer p.release()
	if err := reference.CheckDigest(c.target.Digest); err != nil {
		return "", err
	}
	body, err := p.repo.Manifest(ctx, c.target)
	if err != nil {
		return "", err
	}
	p.target, p.names = c.target, c.names
	if c.digest && len(c.names) > 0 {
		p.names = append(p.names, c.names[0].WithDigest(c.target.Digest))
	}
	if err := p.walk(ctx, body); err != nil {
		return "", err
	}
	if err := p.content(ctx); err != nil {
		return "", err
	}
	if err := s.record(&p); err != nil {
		return "", err
	}
	s.cfg.Log.Info("image imported", "image", c.String(), "id", shortID(p.id), "layers", len(p.manifest.Layers))
	return p.id, nil
}

// archiveSource is an archive in the place of a registry's repository.
type archiveSource struct{ a *archive }

func (s archiveSource) Head(context.Context) (digest.Digest, error) { return "", ErrNotFound }

func (s archiveSource) Resolve(context.Context) (v1.Descriptor, []byte, error) {
	return v1.Descriptor{}, nil, ErrNotFound
}

func (s archiveSource) Manifest(_ context.Context, d v1.Descriptor) ([]byte, error) {
	if f, ok := s.a.files["made/"+d.Digest.Encoded()]; !ok || f.digest != d.Digest {
		if err := s.a.blob(d.Digest); err != nil {
			return nil, err
		}
	}
	b, err := s.a.store.blobs.Read(d.Digest, manifest.MaxBytes)
	if err == nil && int64(len(b)) != d.Size {
		err = fmt.Errorf("%w: %s has %d bytes, promised were %d", ErrInvalidImage, d.Digest, len(b), d.Size)
	}
	return b, err
}

// Blob is asked only for what is not in the content store: the archive lacks it.
func (s archiveSource) Blob(_ context.Context, d v1.Descriptor, _ int64) io.ReadCloser {
	return failingReader{fmt.Errorf("%w: image archive: no blob %s of %d bytes", ErrInvalidImage, d.Digest, d.Size)}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
func (r failingReader) Close() error             { return nil }
