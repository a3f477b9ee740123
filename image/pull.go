package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"keelson.dev/keelson/image/ledger"
	"keelson.dev/keelson/image/manifest"
	"keelson.dev/keelson/image/reference"
	"keelson.dev/keelson/image/registry"
	"keelson.dev/keelson/image/unpack"
)

// Auth is a pull's credentials (CRI's AuthConfig); nil takes those of DockerConfigs.
type Auth = registry.Auth

// Pull brings the image that ref names now, from its registry or a mirror, and
// returns it. The registry is asked even when the image is here (a tag may have
// moved; credentials must be good). Pulls at the same time share everything: one
// download per blob, one unpacking per layer.
//
// Errors: see the Err variables; the text has the registry's own words.
func (s *Store) Pull(ctx context.Context, ref string, auth *Auth) (Image, error) {
	end, err := s.begin()
	if err != nil {
		return Image{}, err
	}
	defer end()
	r, err := reference.Parse(ref)
	if err != nil {
		return Image{}, err
	}
	id, err := s.work.pulls.do(ctx, r.String()+" "+authKey(auth), func(ctx context.Context) (digest.Digest, error) {
		return s.pull(ctx, r, auth)
	})
	if err != nil {
		return Image{}, err
	}
	return s.Get(string(id))
}

// authKey sets pulls with different credentials apart without keeping those.
func authKey(a *Auth) string {
	if a == nil {
		return ""
	}
	b, _ := json.Marshal(a) // strings only
	sum := sha256.Sum256(b)
	return string(sum[:])
}

func (s *Store) pull(ctx context.Context, ref reference.Reference, auth *Auth) (digest.Digest, error) {
	start := time.Now()
	repo, err := registry.Open(s.cfg.Registry, ref, auth)
	if err != nil {
		return "", err
	}
	defer repo.Close()
	p := puller{store: s, repo: repo, ref: ref}
	defer p.release()
	if err := p.resolve(ctx); err != nil {
		return "", fmt.Errorf("failed to resolve reference %q: %w", ref, err)
	}
	atResolved.Reach()
	if err := p.allowed(ctx, auth); err != nil {
		return "", err
	}
	p.names = []reference.Reference{ref, ref.WithDigest(p.target.Digest)}
	if err := p.content(ctx); err != nil {
		return "", fmt.Errorf("failed to pull image %q: %w", ref, err)
	}
	if err := s.record(&p); err != nil {
		return "", fmt.Errorf("failed to record image %q: %w", ref, err)
	}
	s.cfg.Log.Info("image pulled", "image", ref.String(), "id", shortID(p.id), "layers", len(p.manifest.Layers), "took", time.Since(start).Round(time.Millisecond))
	return p.id, nil
}

// puller is the state of one pull.
type puller struct {
	store *Store
	repo  source
	ref   reference.Reference
	names []reference.Reference // for the record

	target   v1.Descriptor // what the name points at: index or manifest
	docs     []digest.Digest
	desc     v1.Descriptor // of manifest
	manifest *v1.Manifest
	config   *v1.Image
	id       digest.Digest // of the config
	chain    []digest.Digest
	releases []func()
}

func (p *puller) release() {
	for _, f := range p.releases {
		f()
	}
}

// keep leases what the pull needs from now on.
func (p *puller) keep(ds ...digest.Digest) {
	p.releases = append(p.releases, p.store.lease(ds...))
	p.store.settled(ds...)
}

// maxIndexDepth: an index may list indexes, those only manifests.
const maxIndexDepth = 2

// resolve finds the manifest for this platform and stores all documents on the
// way. What is here already is not read again.
func (p *puller) resolve(ctx context.Context) error {
	body, err := p.top(ctx)
	if err != nil {
		return err
	}
	return p.walk(ctx, body)
}

// walk goes from the target, whose bytes are body, to the manifest.
func (p *puller) walk(ctx context.Context, body []byte) (err error) {
	desc := p.target
	p.keep(desc.Digest)
	for depth := 0; ; depth++ {
		doc, err := manifest.Parse(desc.MediaType, body)
		if err != nil {
			return err
		}
		if err := p.store.blobs.Put(desc.Digest, body); err != nil {
			return err
		}
		p.docs = append(p.docs, desc.Digest)
		if doc.Manifest != nil {
			p.manifest, p.desc = doc.Manifest, desc
			return nil
		}
		if depth == maxIndexDepth {
			return fmt.Errorf("%w: indexes nested more than %d deep", manifest.ErrInvalid, maxIndexDepth)
		}
		if desc, err = manifest.Choose(doc.Index, p.store.cfg.Platform); err != nil {
			return err
		}
		p.keep(desc.Digest)
		if body, err = p.store.blobs.Read(desc.Digest, manifest.MaxBytes); err == nil && int64(len(body)) == desc.Size {
			continue
		}
		if body, err = p.repo.Manifest(ctx, desc); err != nil {
			return err
		}
	}
}

// top reads the document that the reference points at. If this very reference is
// known, its digest is asked for first, which costs the registry little.
func (p *puller) top(ctx context.Context) ([]byte, error) {
	p.store.mu.Lock()
	have, ok := p.store.state.Target(p.ref.String())
	p.store.mu.Unlock()
	if ok {
		now, err := p.repo.Head(ctx)
		if err == nil && now == have.Digest {
			if body, rerr := p.store.blobs.Read(now, manifest.MaxBytes); rerr == nil {
				p.target = v1.Descriptor{MediaType: have.MediaType, Digest: now, Size: int64(len(body))}
				return body, nil
			}
		} else if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	desc, body, err := p.repo.Resolve(ctx)
	p.target = desc
	return body, err
}

// content brings the config and the layers.
func (p *puller) content(ctx context.Context) error {
	p.id = p.manifest.Config.Digest
	p.keep(p.id)
	b, err := p.small(ctx, p.manifest.Config)
	if err != nil {
		return fmt.Errorf("image config: %w", err)
	}
	if p.config, err = manifest.ParseConfig(b, len(p.manifest.Layers)); err != nil {
		return err
	}
	if err := manifest.CheckPlatform(p.config, p.store.cfg.Platform); err != nil {
		return err
	}
	atConfig.Reach()
	p.chain = manifest.ChainIDs(p.config.RootFS.DiffIDs)
	p.keep(p.chain...)
	g, ctx := errgroup.WithContext(ctx)
	budget := unpack.NewBudget(p.store.cfg.Limits)
	for i, d := range p.manifest.Layers {
		p.keep(d.Digest)
		g.Go(func() error {
			if err := p.layer(ctx, i, budget); err != nil {
				return fmt.Errorf("layer %s: %w", d.Digest, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// record makes the image known.
func (s *Store) record(p *puller) error {
	target := ledger.Target{Digest: p.target.Digest, MediaType: p.target.MediaType}
	img := ledger.Image{
		Names:     map[string]ledger.Target{},
		Manifest:  p.desc.Digest,
		MediaType: p.desc.MediaType,
		Documents: append([]digest.Digest{p.id}, p.docs...),
		Chain:     p.chain,
		PulledAt:  time.Now().UTC(),
	}
	for _, n := range p.names {
		img.Names[n.String()] = target
	}
	for _, d := range p.manifest.Layers {
		img.Blobs = append(img.Blobs, d.Digest)
		img.Size += uint64(d.Size)
	}
	img.Size += uint64(p.manifest.Config.Size + p.desc.Size)
	s.mu.Lock()
	for _, c := range p.chain {
		img.Size += s.state.Layers[c].Bytes
	}
	s.state.Put(p.id, img)
	s.configs[p.id] = p.config
	s.mu.Unlock()
	atKept.Reach()
	s.syncer.want()
	if err := s.save(); err != nil {
		return err
	}
	atSaved.Reach()
	return nil
}
