package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"keelson.dev/keelson/image/gc"
	"keelson.dev/keelson/image/manifest"
	"keelson.dev/keelson/image/snapshot"
)

// recover brings memory and disk together after Open: whatever the ledger does
// not know goes, unless a living mount uses it; images whose layers or config are
// missing are forgotten.
func (s *Store) recover() error {
	for chain, l := range s.state.Layers {
		if st, err := os.Stat(filepath.Join(s.cfg.Root, "layers", l.Dir)); err != nil || !st.IsDir() {
			s.cfg.Log.Warn("layer is missing", "layer", string(chain))
			delete(s.state.Layers, chain)
		}
	}
	for _, id := range s.state.Check() {
		s.cfg.Log.Warn("image forgotten: a layer is missing; pull it again", "image", string(id))
	}
	for _, id := range s.state.Sorted() {
		if err := s.loadConfig(id); err != nil {
			s.cfg.Log.Warn("image forgotten: its config cannot be read; pull it again", "image", string(id), "err", err)
			s.state.Drop(id)
		}
	}
	dirs := map[string]bool{}
	for _, l := range s.state.Layers {
		dirs[l.Dir] = true
	}
	containers, views, err := s.snaps.Recover(func(dir string) bool { return dirs[dir] })
	if err != nil {
		return err
	}
	maps.Copy(s.mounted, containers)
	for id, r := range views {
		s.mounted[viewPrefix+id] = r
	}
	s.state.Next = max(s.state.Next, s.snaps.Next()) // a living mount may use layers that the ledger does not know
	if err := s.save(); err != nil {
		return err
	}
	return errors.Join(s.collect(slices.Clone(s.state.Doomed)), s.sweep())
}

// loadConfig parses a stored image's config into memory.
func (s *Store) loadConfig(id digest.Digest) error {
	b, err := s.blobs.Read(id, manifest.MaxBytes)
	if err != nil {
		return err
	}
	c, err := manifest.ParseConfig(b, len(s.state.Images[id].Chain))
	if err != nil {
		return err
	}
	s.configs[id] = c
	return nil
}

// lease keeps layers and blobs from being collected until release, which then
// does what was put off because of it.
func (s *Store) lease(ds ...digest.Digest) (release func()) {
	ds = slices.Clone(ds)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		s.leases[d]++
	}
	return func() {
		var late []digest.Digest
		free := false
		s.mu.Lock()
		for _, d := range ds {
			if s.leases[d]--; s.leases[d] > 0 {
				continue
			}
			delete(s.leases, d)
			free = true
			if s.putOff[d] {
				late = append(late, d)
				delete(s.putOff, d)
			}
		}
		s.mu.Unlock()
		if !free {
			return
		}
		if err := s.collect(late); err != nil {
			s.cfg.Log.Warn("unused image data not removed", "err", err)
		}
	}
}

// used is everything that must stay. mu is held.
func (s *Store) used() gc.Use {
	use := gc.NewUse()
	for id, img := range s.state.Images {
		use.Blobs[id] = true
		for _, list := range [][]digest.Digest{img.Documents, img.Blobs} {
			for _, d := range list {
				use.Blobs[d] = true
			}
		}
		for _, c := range img.Chain {
			use.Layers[c] = true
		}
	}
	for _, rec := range s.mounted {
		for _, c := range rec.Chains {
			use.Layers[digest.Digest(c)] = true
		}
	}
	for d := range s.leases {
		use.Layers[d], use.Blobs[d] = true, true
	}
	return use
}

// collect deletes layers that nothing uses, and of the blobs those in candidates.
// Other unused blobs stay for a while: a pull that was cut short may come back
// for them; sweep takes them when they are old.
func (s *Store) collect(candidates []digest.Digest) error {
	blobs := make([]gc.Blob, 0, len(candidates))
	for _, d := range candidates {
		blobs = append(blobs, gc.Blob{Digest: d})
	}
	s.mu.Lock()
	for _, d := range candidates {
		if s.leases[d] > 0 {
			s.putOff[d] = true
		}
	}
	plan := gc.Decide(slices.Collect(maps.Keys(s.state.Layers)), blobs, s.used())
	var dirs []string
	for _, c := range plan.Layers {
		dirs = append(dirs, s.state.Layers[c].Dir)
		delete(s.state.Layers, c)
	}
	s.mu.Unlock()
	defer s.absolve(candidates)
	if len(plan.Layers) == 0 && len(plan.Blobs) == 0 {
		return nil
	}
	atCollecting.Reach()
	errs := []error{s.save()}
	if err := s.forgetDurably(); err != nil {
		// Go on: on a full disk this is how space comes back. Should power fail
		// now, Open finds the layers missing and forgets the image.
		errs = append(errs, err)
	}
	atForgot.Reach()
	for _, d := range dirs {
		errs = append(errs, s.snaps.RemoveLayer(d))
	}
	atUnlayered.Reach()
	for _, d := range plan.Blobs {
		errs = append(errs, s.dropBlob(d))
	}
	atCollected.Reach()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("collect unused image data: %w", err)
	}
	return nil
}

// absolve takes blobs that were collected, or are wanted again, off the list of
// those that a start must collect.
func (s *Store) absolve(ds []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Doomed = slices.DeleteFunc(s.state.Doomed, func(d digest.Digest) bool { return !s.putOff[d] && slices.Contains(ds, d) })
}

// orphanAge is how long a blob that no image names stays for an interrupted pull.
const orphanAge = time.Hour

// sweep removes what interrupted pulls and imports left long ago.
func (s *Store) sweep() error {
	old, err := s.blobs.Stale(time.Now().Add(-orphanAge))
	s.mu.Lock()
	use := s.used()
	s.mu.Unlock()
	errs := []error{err}
	for _, d := range old {
		if !use.Blobs[d] {
			errs = append(errs, s.dropBlob(d))
		}
	}
	return errors.Join(errs...)
}

// dropBlob removes a blob that no image had when it was looked at, unless
// somebody has begun to want it since. Whoever takes a lease waits for a drop
// under way (settled), so that what it then sees of the blob stays.
func (s *Store) dropBlob(d digest.Digest) error {
	unlock, err := s.work.drops.lock(context.Background(), string(d))
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	wanted := s.leases[d] > 0
	if wanted {
		s.putOff[d] = true
	}
	s.mu.Unlock()
	if wanted {
		return nil
	}
	return s.blobs.Drop(d)
}

// settled waits until drops of ds that began before they were leased have ended.
func (s *Store) settled(ds ...digest.Digest) {
	for _, d := range ds {
		if unlock, err := s.work.drops.lock(context.Background(), string(d)); err == nil {
			unlock()
		}
	}
}

// viewPrefix sets views apart from containers in Store.mounted; no id has a slash.
const viewPrefix = "view/"

// layersOf names an image's layer directories for a mount, topmost first. mu is held.
func (s *Store) layersOf(id digest.Digest) (rec snapshot.Record) {
	rec.Image = string(id)
	for _, c := range slices.Backward(s.state.Images[id].Chain) {
		rec.Layers = append(rec.Layers, s.state.Layers[c].Dir)
		rec.Chains = append(rec.Chains, string(c))
	}
	return rec
}

// shortID is an image id as users type it.
func shortID(id digest.Digest) string { return strings.TrimPrefix(string(id), "sha256:") }
