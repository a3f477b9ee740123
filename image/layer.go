package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"keelson.dev/keelson/image/content"
	"keelson.dev/keelson/image/ledger"
	"keelson.dev/keelson/image/registry"
	"keelson.dev/keelson/image/snapshot"
	"keelson.dev/keelson/image/unpack"
)

// source is where a pull reads from: a registry's repository, or an archive's
// blobs on disk.
type source interface {
	Head(ctx context.Context) (digest.Digest, error)
	Resolve(ctx context.Context) (v1.Descriptor, []byte, error)
	Manifest(ctx context.Context, d v1.Descriptor) ([]byte, error)
	Blob(ctx context.Context, d v1.Descriptor, offset int64) io.ReadCloser
}

// small reads a blob of a few megabytes at most: from the store, else from the source.
func (p *puller) small(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	b, err := p.store.blobs.Read(d.Digest, d.Size)
	if err == nil && int64(len(b)) == d.Size {
		return b, nil
	}
	r := p.repo.Blob(ctx, d, 0)
	defer r.Close()
	if b, err = io.ReadAll(io.LimitReader(r, d.Size+1)); err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return nil, fmt.Errorf("%w: promised was %s, the bytes have %s", ErrCorrupt, d.Digest, got)
	}
	return b, p.store.blobs.Put(d.Digest, b)
}

// layer makes layer i of the manifest exist, unpacked. The pull holds leases on
// its chain IDs, so what it finds stays.
func (p *puller) layer(ctx context.Context, i int, budget *unpack.Budget) error {
	if p.store.hasLayer(p.chain[i]) {
		return p.restore(ctx, i)
	}
	_, err := p.store.work.layers.do(ctx, string(p.chain[i]), func(ctx context.Context) (struct{}, error) {
		if p.store.hasLayer(p.chain[i]) { // the call before ours made it
			return struct{}{}, nil
		}
		return struct{}{}, p.makeLayer(ctx, i, budget)
	})
	return err
}

// restore fetches the blob of an unpacked layer again when it is no longer stored
// (Verify found it corrupt).
func (p *puller) restore(ctx context.Context, i int) error {
	d := p.manifest.Layers[i]
	p.store.mu.Lock()
	from := p.store.state.Layers[p.chain[i]].Blob
	p.store.mu.Unlock()
	if n, err := p.store.blobs.Size(d.Digest); from != d.Digest || err == nil && n == d.Size {
		return nil
	}
	in, err := p.open(ctx, d)
	if err != nil {
		return err
	}
	defer in.close()
	if err := in.finish(); err != nil {
		return in.failed(ctx, err)
	}
	return nil
}

func (s *Store) hasLayer(chain digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Layers[chain] != nil
}

// makeLayer unpacks layer i beside its siblings, then waits for the one below,
// settles on it and commits.
func (p *puller) makeLayer(ctx context.Context, i int, budget *unpack.Budget) error {
	defer p.store.lease(p.chain[:i+1]...)() // our starter may leave before us
	draft, err := p.store.snaps.Draft()
	if err != nil {
		return err
	}
	defer func() { draft.Abort() }()
	rep, err := p.unpack(ctx, i, draft, budget)
	if tainted := new(taintedError); errors.As(err, &tainted) {
		// Bytes from an earlier run were bad: once more, from the source alone.
		p.store.cfg.Log.Warn("stored bytes of a layer are bad, fetching it again", "blob", string(p.manifest.Layers[i].Digest), "err", err)
		draft.Abort()
		if draft, err = p.store.snaps.Draft(); err != nil {
			return err
		}
		rep, err = p.unpack(ctx, i, draft, budget)
	}
	if err != nil {
		return err
	}
	atUnpacked.Reach()
	if want := p.config.RootFS.DiffIDs[i]; rep.DiffID != want {
		return errors.Join(fmt.Errorf("%w: unpacked it has DiffID %s, the config says %s", ErrCorrupt, rep.DiffID, want),
			p.store.blobs.Drop(p.manifest.Layers[i].Digest))
	}
	if i > 0 {
		if err := p.layer(ctx, i-1, budget); err != nil {
			return fmt.Errorf("layer below: %w", err)
		}
	}
	if err := p.store.settle(ctx, draft, p.chain[:i], &rep); err != nil {
		return err
	}
	atSettled.Reach()
	return p.store.commitLayer(draft, p.chain[i], p.manifest.Layers[i].Digest, rep)
}

// settle joins a draft with the layers below it.
func (s *Store) settle(ctx context.Context, draft *snapshot.Draft, below []digest.Digest, rep *unpack.Report) error {
	var lowers []*os.File
	defer func() {
		for _, f := range lowers {
			f.Close()
		}
	}()
	s.mu.Lock()
	var dirs []string
	for i := len(below) - 1; i >= 0; i-- {
		dirs = append(dirs, s.state.Layers[below[i]].Dir)
	}
	s.mu.Unlock()
	for _, d := range dirs {
		f, err := s.snaps.Layer(d)
		if err != nil {
			return err
		}
		lowers = append(lowers, f)
	}
	return unpack.Settle(ctx, draft.Dir, lowers, rep)
}

func (s *Store) commitLayer(draft *snapshot.Draft, chain, blob digest.Digest, rep unpack.Report) error {
	s.mu.Lock()
	name := snapshot.LayerName(s.state.Next)
	s.state.Next++
	s.mu.Unlock()
	if err := draft.Commit(name); err != nil {
		return err
	}
	s.mu.Lock()
	s.state.Layers[chain] = &ledger.Layer{Dir: name, Diff: rep.DiffID, Blob: blob, Bytes: rep.Bytes, Inodes: rep.Inodes}
	s.mu.Unlock()
	atLayer.Reach()
	return nil
}

// unpack streams layer i's blob, from disk or the source, into the draft, and
// keeps the blob if all of it is right.
func (p *puller) unpack(ctx context.Context, i int, draft *snapshot.Draft, budget *unpack.Budget) (unpack.Report, error) {
	select {
	case p.store.work.slots <- struct{}{}:
		defer func() { <-p.store.work.slots }()
	case <-ctx.Done():
		return unpack.Report{}, context.Cause(ctx)
	}
	d := p.manifest.Layers[i]
	in, err := p.open(ctx, d)
	if err != nil {
		return unpack.Report{}, err
	}
	defer in.close()
	rep, err := unpack.Layer(ctx, in, draft.Dir, budget)
	if err == nil {
		err = in.finish()
	}
	if err != nil {
		return unpack.Report{}, in.failed(ctx, err)
	}
	return rep, nil
}

// taintedError: the failure may be due to bytes that were on disk already; they
// are gone now.
type taintedError struct{ error }

func (e *taintedError) Unwrap() error { return e.error }

// blobReader gives a layer blob's bytes: those on disk first, then the source's,
// which it stores on the way.
type blobReader struct {
	store  *Store
	d      v1.Descriptor
	unlock func()
	stored *os.File        // a whole blob on disk, or
	w      *content.Writer // one to take in
	net    io.ReadCloser   // nil while replaying
	open   func(offset int64) io.ReadCloser
	sum    digest.Verifier // of stored
	replay bool            // bytes on disk were used
	eof    bool
}

func (p *puller) open(ctx context.Context, d v1.Descriptor) (*blobReader, error) {
	unlock, err := p.store.work.fetch.lock(ctx, string(d.Digest))
	if err != nil {
		return nil, err
	}
	r := &blobReader{store: p.store, d: d, unlock: unlock,
		open: func(off int64) io.ReadCloser { return p.repo.Blob(ctx, d, off) }}
	if n, err := p.store.blobs.Size(d.Digest); err == nil && n == d.Size {
		if r.stored, err = p.store.blobs.Open(d.Digest); err == nil {
			unlock() // a whole blob may be read by many
			r.sum, r.replay = d.Digest.Verifier(), true
			return r, nil
		}
	}
	if r.w, err = p.store.blobs.Ingest(d.Digest, d.Size); err != nil {
		unlock()
		return nil, err
	}
	return r, nil
}

func (r *blobReader) Read(p []byte) (int, error) {
	if r.eof {
		return 0, io.EOF
	}
	if r.stored != nil {
		n, err := r.stored.Read(p)
		r.sum.Write(p[:n])
		r.eof = err == io.EOF
		return n, err
	}
	if r.net == nil {
		n, err := r.w.Replay(p)
		r.replay = r.replay || n > 0
		if n > 0 || err != io.EOF {
			return n, err
		}
		r.net = r.open(r.w.Offset())
	}
	n, err := r.net.Read(p)
	if n > 0 {
		if _, werr := r.w.Write(p[:n]); werr != nil {
			return 0, werr
		}
	}
	r.eof = err == io.EOF
	return n, err
}

// finish reads what the unpacking left over and checks the whole.
func (r *blobReader) finish() error {
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{r}); err != nil {
		return err
	}
	if r.stored == nil {
		return r.w.Commit()
	}
	if !r.sum.Verified() {
		return fmt.Errorf("%w: %s on disk", ErrCorrupt, r.d.Digest)
	}
	return nil
}

// failed cleans up after err. What a cancelled or interrupted download left stays
// for the next try; what proved bad goes.
func (r *blobReader) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	bad := errors.Is(err, ErrCorrupt) || errors.Is(err, ErrInvalidLayer) || errors.Is(err, ErrLimit) || errors.Is(err, registry.ErrSize)
	if !bad || errors.Is(err, ErrUnreachable) {
		return err
	}
	r.close()
	err = errors.Join(err, r.store.blobs.Drop(r.d.Digest))
	if r.replay && !errors.Is(err, ErrLimit) {
		return &taintedError{err}
	}
	return err
}

// close is idempotent; a partial blob stays.
func (r *blobReader) close() {
	if r.net != nil {
		r.net.Close()
	}
	if r.w != nil {
		r.w.Close()
	}
	if r.stored != nil {
		r.stored.Close()
	}
	r.unlock()
}
