package content

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// Writer takes in one blob. Bytes are hashed as they come; never more than the
// promised size is accepted. Close without Commit keeps what has arrived, for
// the next Ingest of the same digest.
type Writer struct {
	store *Store
	d     digest.Digest
	size  int64
	n     int64 // bytes in the file and in the hash
	f     *os.File
	h     hash.Hash
}

// Ingest begins or goes on with blob d of size bytes. Offset tells how much is
// already here once Replay has read it all; Reset throws it away. One of the two
// comes before the first Write.
func (s *Store) Ingest(d digest.Digest, size int64) (*Writer, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("ingest %.80q: %w", string(d), err)
	}
	f, err := os.OpenFile(s.ingestPath(d), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ingest %s: %w", d, err)
	}
	return &Writer{store: s, d: d, size: size, f: f, h: d.Algorithm().Hash()}, nil
}

// Reset forgets what has arrived.
func (w *Writer) Reset() error {
	w.h.Reset()
	w.n = 0
	if err := w.f.Truncate(0); err != nil {
		return fmt.Errorf("ingest %s: %w", w.d, err)
	}
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("ingest %s: %w", w.d, err)
	}
	return nil
}

// Replay gives back, and hashes, what an earlier Writer left; io.EOF at its end,
// from where on Write appends. More bytes than promised are garbage and dropped:
// ErrCorrupt.
func (w *Writer) Replay(p []byte) (int, error) {
	n, err := w.f.Read(p)
	w.h.Write(p[:n])
	w.n += int64(n)
	if w.n > w.size {
		return 0, errors.Join(fmt.Errorf("%w: %s: %d bytes arrived, promised were %d", ErrCorrupt, w.d, w.n, w.size), w.Abandon())
	}
	return n, err
}

// Offset is how many bytes are in.
func (w *Writer) Offset() int64 { return w.n }

// Write appends and hashes; more than the promised size is ErrCorrupt.
func (w *Writer) Write(p []byte) (int, error) {
	if w.n+int64(len(p)) > w.size {
		return 0, fmt.Errorf("%w: %s: more than the promised %d bytes", ErrCorrupt, w.d, w.size)
	}
	n, err := w.f.Write(p)
	w.h.Write(p[:n])
	w.n += int64(n)
	if err != nil {
		return n, fmt.Errorf("ingest %s: %w", w.d, err)
	}
	return n, nil
}

// Commit checks size and digest and makes the blob visible. On mismatch nothing
// stays: the error wraps ErrCorrupt.
func (w *Writer) Commit() error {
	got := digest.NewDigest(w.d.Algorithm(), w.h)
	var bad error
	switch {
	case w.n != w.size:
		bad = fmt.Errorf("%w: %s: got %d bytes, promised were %d", ErrCorrupt, w.d, w.n, w.size)
	case got != w.d:
		bad = fmt.Errorf("%w: promised was %s, the bytes have %s", ErrCorrupt, w.d, got)
	}
	if bad != nil {
		return errors.Join(bad, w.Abandon())
	}
	if err := w.close(); err != nil {
		return fmt.Errorf("ingest %s: %w", w.d, err)
	}
	atWhole.Reach()
	if err := os.Rename(w.store.ingestPath(w.d), w.store.path(w.d)); err != nil {
		return fmt.Errorf("commit blob %s: %w", w.d, err)
	}
	atVisible.Reach()
	return nil
}

// Abandon removes what has arrived and closes. Idempotent.
func (w *Writer) Abandon() error {
	err := w.close()
	if rm := os.Remove(w.store.ingestPath(w.d)); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

// Close keeps what has arrived, if anything. Safe after Commit and Abandon.
func (w *Writer) Close() error {
	if w.f == nil {
		return nil
	}
	if st, err := w.f.Stat(); err == nil && st.Size() == 0 {
		return w.Abandon()
	}
	return w.close()
}

func (w *Writer) close() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	return f.Close()
}
