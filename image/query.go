package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"keelson.dev/keelson/image/reference"
)

// ImageConfig is what the image says about running it.
type ImageConfig = v1.ImageConfig

// Image is a stored image.
type Image struct {
	ID           string   // sha256:<digest of the config>
	RepoTags     []string // docker.io/library/nginx:1.27
	RepoDigests  []string // docker.io/library/nginx@sha256:...; of what the name pointed at: index or manifest
	Size         uint64   // bytes on disk, were nothing shared with other images
	Pinned       bool     // not to be removed by the kubelet's garbage collection
	Config       ImageConfig
	Architecture string
	OS           string
}

// Get finds an image by ID ("sha256:..." or bare hex, also its first 12 digits or
// more) or by any reference it has. The error wraps ErrNotFound.
func (s *Store) Get(ref string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.find(ref)
	if !ok {
		return Image{}, fmt.Errorf("image %q: %w", ref, ErrNotFound)
	}
	return s.view(id), nil
}

// find resolves what a caller may say. mu is held.
func (s *Store) find(ref string) (digest.Digest, bool) {
	if id, ok := s.state.Find(ref); ok {
		return id, true
	}
	if r, err := reference.Parse(ref); err == nil {
		if id, ok := s.state.Find(r.String()); ok {
			return id, true
		}
	}
	return s.state.FindPrefix(ref)
}

// view is the image as callers see it; mu is held. The caller owns the result.
func (s *Store) view(id digest.Digest) Image {
	img, c := s.state.Images[id], s.configs[id]
	return Image{
		ID:           string(id),
		RepoTags:     img.Tags(),
		RepoDigests:  img.Digests(),
		Size:         img.Size,
		Pinned:       img.Pinned,
		Config:       c.Config, // never changed; its maps and slices are shared
		Architecture: c.Architecture,
		OS:           c.OS,
	}
}

// List gives all images, ordered by ID.
func (s *Store) List() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Image, 0, len(s.state.Images))
	for _, id := range s.state.Sorted() {
		out = append(out, s.view(id))
	}
	return out
}

// Remove removes the image that ref names, with all its names, as CRI's
// RemoveImage does; one that is not there is no error. What containers have
// mounted stays on disk until they unmount it.
func (s *Store) Remove(_ context.Context, ref string) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	s.mu.Lock()
	id, ok := s.find(ref)
	if !ok {
		s.mu.Unlock()
		return nil
	}
	img := s.state.Images[id]
	blobs := append(append([]digest.Digest{id}, img.Documents...), img.Blobs...)
	s.state.Drop(id)
	s.state.Doomed = append(s.state.Doomed, blobs...)
	delete(s.configs, id)
	s.mu.Unlock()
	if err := s.save(); err != nil {
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	atRemoved.Reach()
	if err := errors.Join(s.collect(blobs), s.sweep()); err != nil {
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	return nil
}

// SetPinned marks an image as not to be garbage collected, or no longer so.
func (s *Store) SetPinned(ref string, pinned bool) error {
	s.mu.Lock()
	id, ok := s.find(ref)
	if ok {
		c := *s.state.Images[id]
		c.Pinned = pinned
		s.state.Images[id] = &c
	}
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("image %q: %w", ref, ErrNotFound)
	}
	s.syncer.want()
	return s.save()
}
