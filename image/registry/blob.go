package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob streams d's bytes from offset on. The reader connects when first read,
// goes on with a Range request after a cut, and moves to the next host when one
// has failed for good. It ends after exactly d.Size-offset bytes or with an
// error; it does not check the digest.
func (r *Repository) Blob(ctx context.Context, d v1.Descriptor, offset int64) io.ReadCloser {
	b := &blobReader{repo: r, desc: d, off: offset, ctx: ctx}
	for _, s := range r.sessions {
		if s.ep.Pull {
			b.hosts = append(b.hosts, s)
		}
	}
	return b
}

type blobReader struct {
	repo  *Repository
	desc  v1.Descriptor
	ctx   context.Context
	hosts []*session // still to try; the first is in use
	errs  []error    // why the earlier ones failed

	off      int64 // next byte to give
	skip     int64 // bytes to throw away: the host ignored the Range
	failures int   // in a row
	since    int64 // bytes since the last failure

	body   io.ReadCloser
	length int64 // of body as the host says, -1 if it does not
	cancel context.CancelCauseFunc
	watch  *time.Timer
	waited time.Duration // in Read, since windowAt bytes had arrived
	window int64         // bytes of this window
	err    error
}

func (b *blobReader) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.off == b.desc.Size {
			b.err = io.EOF
			break
		}
		n, err := b.read(p)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			b.err = b.next(err)
		}
	}
	return 0, b.err
}

// read does one read on the current connection, making it if needed.
func (b *blobReader) read(p []byte) (int, error) {
	if b.body == nil {
		if err := b.connect(); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	b.watch.Reset(b.repo.cfg.ProgressTimeout - b.waited)
	n, err := b.body.Read(p[:min(int64(len(p)), b.skip+b.desc.Size-b.off)])
	b.watch.Stop()
	b.waited += time.Since(start)
	b.window += int64(n)
	if b.window >= b.repo.cfg.ProgressBytes {
		b.window, b.waited = 0, 0
	}
	if b.waited >= b.repo.cfg.ProgressTimeout {
		err = errStalled(b.repo.cfg)
	}
	if b.since += int64(n); b.since >= b.repo.cfg.ProgressBytes {
		b.failures = 0
	}
	if b.skip > 0 {
		drop := min(b.skip, int64(n))
		b.skip -= drop
		n = copy(p, p[drop:n])
	}
	b.off += int64(n)
	if b.off == b.desc.Size && b.length < 0 && err == nil {
		err = b.expectEnd()
	}
	if errors.Is(err, ErrSize) {
		b.off -= int64(n)
		return 0, err
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && n > 0 && b.waited < b.repo.cfg.ProgressTimeout {
		err = nil // the error comes again with the next read
	}
	if err != nil {
		err = unreachable(fmt.Errorf("read %s from %s at byte %d: %w", b.desc.Digest, b.hosts[0].ep.URL.Host, b.off, err))
	}
	return n, err
}

// expectEnd makes sure that an answer without a length is not longer than promised.
func (b *blobReader) expectEnd() error {
	var one [1]byte
	b.watch.Reset(b.repo.cfg.ProgressTimeout)
	defer b.watch.Stop()
	if n, _ := b.body.Read(one[:]); n > 0 {
		return fmt.Errorf("%w: longer than the promised %d bytes", ErrSize, b.desc.Size)
	}
	return nil
}

func errStalled(c Config) error {
	return fmt.Errorf("%w: less than %d bytes in %s", ErrStalled, c.ProgressBytes, c.ProgressTimeout)
}

func (b *blobReader) connect() error {
	if len(b.hosts) == 0 {
		return fmt.Errorf("%w: hosts.toml gives no host the capability to pull", ErrNotFound)
	}
	s := b.hosts[0]
	ctx, cancel := context.WithCancelCause(b.ctx)
	h := http.Header{}
	if b.off > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := s.do(ctx, http.MethodGet, "blobs", string(b.desc.Digest), h)
	if err == nil {
		err = b.check(resp)
	}
	if err != nil {
		cancel(nil)
		return err
	}
	b.body, b.cancel, b.since, b.length = resp.Body, cancel, 0, resp.ContentLength
	b.watch = time.AfterFunc(time.Hour, func() { cancel(errStalled(s.cfg)) })
	b.watch.Stop()
	return nil
}

// check judges the answer's head: what it promises must fit the descriptor.
func (b *blobReader) check(resp *http.Response) error {
	want := b.desc.Size
	switch resp.StatusCode {
	case http.StatusOK:
		b.skip = b.off
	case http.StatusPartialContent:
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", b.off)) {
			resp.Body.Close()
			return fmt.Errorf("blob %s: asked for bytes from %d, got %.60q", b.desc.Digest, b.off, resp.Header.Get("Content-Range"))
		}
		b.skip, want = 0, b.desc.Size-b.off
	default:
		return statusError(resp)
	}
	if n := resp.ContentLength; n >= 0 && n != want {
		resp.Body.Close()
		return fmt.Errorf("%w: the registry has %d bytes, the manifest promised %d", ErrSize, n, want)
	}
	return nil
}

// next decides after a failure: nil to go on (after a pause, or at the next
// host), or the error to end with.
func (b *blobReader) next(err error) error {
	b.disconnect()
	if cause := b.ctx.Err(); cause != nil {
		return fmt.Errorf("blob %s: %w", b.desc.Digest, context.Cause(b.ctx))
	}
	if len(b.hosts) == 0 {
		return err
	}
	b.waited, b.window = 0, 0
	if transient(err) && b.failures < b.repo.cfg.Retries {
		b.failures++
		b.repo.cfg.Log.Debug("blob download interrupted", "blob", string(b.desc.Digest), "at", b.off, "failures", b.failures, "err", err)
		return b.repo.cfg.wait(b.ctx, b.failures-1, err)
	}
	b.errs = append(b.errs, fmt.Errorf("blob %s: %w", b.desc.Digest, b.repo.explainBlob(err)))
	b.hosts, b.failures = b.hosts[1:], 0
	if len(b.hosts) > 0 {
		return nil
	}
	return errors.Join(b.errs...)
}

// explainBlob is explain without the reference: it is not the tag that is missing.
func (r *Repository) explainBlob(err error) error {
	if errors.Is(err, ErrNotFound) {
		return ErrNotFound
	}
	return r.explain(err)
}

func (b *blobReader) disconnect() {
	if b.body != nil {
		b.watch.Stop()
		b.cancel(nil)
		b.body.Close()
		b.body = nil
	}
}

// Close ends the download. Idempotent.
func (b *blobReader) Close() error {
	b.disconnect()
	if b.err == nil {
		b.err = errors.New("blob reader is closed")
	}
	return nil
}
