package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"keelson.dev/keelson/image/ledger"
	"keelson.dev/keelson/image/manifest"
)

// Export writes images as one OCI layout in a tar archive, which Import, Docker,
// Podman, skopeo and containerd read. Every byte is checked on the way out. The
// archive of the same images is the same, byte by byte.
func (s *Store) Export(ctx context.Context, w io.Writer, refs ...string) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	x := exporter{ctx: ctx, store: s, tw: tar.NewWriter(w), done: map[digest.Digest]bool{}}
	defer x.release()
	if err := x.file(v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}); err != nil {
		return fmt.Errorf("export images: %w", err)
	}
	for _, ref := range refs {
		if err := x.image(ref); err != nil {
			return fmt.Errorf("export image %q: %w", ref, err)
		}
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: x.index}
	if err := x.file(v1.ImageIndexFile, index); err != nil {
		return fmt.Errorf("export images: %w", err)
	}
	if err := x.file("manifest.json", x.docker); err != nil { // for Docker before 25
		return fmt.Errorf("export images: %w", err)
	}
	if err := x.tw.Close(); err != nil {
		return fmt.Errorf("export images: %w", err)
	}
	return nil
}

type exporter struct {
	ctx      context.Context
	store    *Store
	tw       *tar.Writer
	done     map[digest.Digest]bool
	index    []v1.Descriptor
	docker   []dockerItem
	releases []func()
}

type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (x *exporter) release() {
	for _, f := range x.releases {
		f()
	}
}

// find looks an image up and keeps its blobs from being collected.
func (x *exporter) find(ref string) (ledger.Image, error) {
	x.store.mu.Lock()
	id, ok := x.store.find(ref)
	if !ok {
		x.store.mu.Unlock()
		return ledger.Image{}, ErrNotFound
	}
	img := *x.store.state.Images[id]
	x.store.mu.Unlock()
	x.releases = append(x.releases, x.store.lease(append(slices.Clone(img.Documents), img.Blobs...)...))
	return img, nil
}

func (x *exporter) image(ref string) error {
	img, err := x.find(ref)
	if err != nil {
		return err
	}
	body, err := x.store.blobs.Read(img.Manifest, manifest.MaxBytes)
	if err != nil {
		return err
	}
	doc, err := manifest.Parse(img.MediaType, body)
	if err != nil {
		return err
	}
	m := doc.Manifest
	item := dockerItem{Config: blobName(m.Config.Digest), RepoTags: img.Tags()}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := x.blob(d.Digest, d.Size); err != nil {
			return err
		}
	}
	for _, d := range m.Layers {
		item.Layers = append(item.Layers, blobName(d.Digest))
	}
	if err := x.blob(img.Manifest, int64(len(body))); err != nil {
		return err
	}
	x.docker = append(x.docker, item)
	desc := v1.Descriptor{MediaType: img.MediaType, Digest: img.Manifest, Size: int64(len(body))}
	if len(item.RepoTags) == 0 {
		x.index = append(x.index, desc)
	}
	for _, t := range item.RepoTags {
		desc.Annotations = map[string]string{annotationName: t, v1.AnnotationRefName: t}
		x.index = append(x.index, desc)
	}
	return nil
}

func blobName(d digest.Digest) string {
	return "blobs/" + string(d.Algorithm()) + "/" + d.Encoded()
}

// blob writes a stored blob once, checking its digest.
func (x *exporter) blob(d digest.Digest, size int64) error {
	if x.done[d] {
		return nil
	}
	x.done[d] = true
	f, err := x.store.blobs.Open(d)
	if err != nil {
		return fmt.Errorf("%w; pull the image again", err)
	}
	defer f.Close()
	if err := x.header(blobName(d), size); err != nil {
		return err
	}
	sum := d.Verifier()
	if _, err := io.Copy(io.MultiWriter(x.tw, sum), &contextReader{x.ctx, io.LimitReader(f, size)}); err != nil {
		return err
	}
	if !sum.Verified() {
		return fmt.Errorf("%w: %s on disk", ErrCorrupt, d)
	}
	return nil
}

func (x *exporter) header(name string, size int64) error {
	return x.tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
}

func (x *exporter) file(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := x.header(name, int64(len(b))); err != nil {
		return err
	}
	_, err = x.tw.Write(b)
	return err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
