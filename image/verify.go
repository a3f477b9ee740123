package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"keelson.dev/keelson/image/content"
)

// Verify reads every stored blob of an image and checks it against its digest.
// Corrupt blobs are removed, so that the next pull fetches them anew; the error
// wraps ErrCorrupt and names each. A layer's blob that is not stored (the layer
// came from another image's blob) is no error.
func (s *Store) Verify(ctx context.Context, ref string) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	s.mu.Lock()
	id, ok := s.find(ref)
	var ds []digest.Digest
	if ok {
		img := s.state.Images[id]
		ds = append(append([]digest.Digest{id}, img.Documents...), img.Blobs...)
	}
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("verify image %q: %w", ref, ErrNotFound)
	}
	defer s.lease(ds...)()
	var errs []error
	seen := map[digest.Digest]bool{}
	for _, d := range ds {
		if seen[d] {
			continue
		}
		seen[d] = true
		err := s.blobs.Verify(ctx, d)
		switch {
		case errors.Is(err, content.ErrCorrupt):
			errs = append(errs, err, s.blobs.Drop(d))
		case err != nil && !errors.Is(err, content.ErrNotFound):
			return fmt.Errorf("verify image %q: %w", ref, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("verify image %q: %w; pull it again", ref, err)
	}
	return nil
}
