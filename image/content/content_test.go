package content

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stored(t *testing.T, s *Store) (whole, partial int) {
	t.Helper()
	if err := s.Each(func(_ digest.Digest, _ int64, p bool) {
		if p {
			partial++
		} else {
			whole++
		}
	}); err != nil {
		t.Fatal(err)
	}
	return whole, partial
}

func TestResume(t *testing.T) {
	s := open(t)
	data := []byte(strings.Repeat("0123456789", 1000))
	for _, d := range []digest.Digest{digest.SHA256.FromBytes(data), digest.SHA512.FromBytes(data)} {
		for _, cut := range []int{0, 1, 5000, len(data)} {
			w, err := s.Ingest(d, int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data[:cut]); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil { // as after a crash
				t.Fatal(err)
			}
			if _, err := s.Size(d); !errors.Is(err, ErrNotFound) {
				t.Errorf("half a blob is visible: %v", err)
			}
			if w, err = s.Ingest(d, int64(len(data))); err != nil {
				t.Fatal(err)
			}
			back, err := io.ReadAll(readerFunc(w.Replay))
			if err != nil || !bytes.Equal(back, data[:cut]) || w.Offset() != int64(cut) {
				t.Errorf("cut at %d: replayed %d bytes, offset %d, %v", cut, len(back), w.Offset(), err)
			}
			if _, err := w.Write(data[cut:]); err != nil {
				t.Error(err)
			}
			if err := w.Commit(); err != nil {
				t.Error(err)
			}
			if got, err := s.Read(d, int64(len(data))); err != nil || !bytes.Equal(got, data) {
				t.Errorf("cut at %d: %d bytes, %v", cut, len(got), err)
			}
			if err := s.Drop(d); err != nil {
				t.Error(err)
			}
		}
	}
	if w, p := stored(t, s); w != 0 || p != 0 {
		t.Errorf("%d blobs and %d partial ones are left", w, p)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestWrongBytesLeaveNothing(t *testing.T) {
	s := open(t)
	data := []byte("right")
	d := digest.FromBytes(data)
	for name, b := range map[string]string{"flipped": "wrong", "short": "righ", "empty": ""} {
		w, err := s.Ingest(d, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(b)); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
		w.Close()
	}
	w, _ := s.Ingest(d, int64(len(data)))
	if _, err := w.Write([]byte("right and more")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("longer: %v, want ErrCorrupt", err)
	}
	w.Close()
	// What an earlier run left is longer than the blob can be.
	os.WriteFile(s.ingestPath(d), []byte("right and more"), 0o600)
	w, _ = s.Ingest(d, int64(len(data)))
	if _, err := w.Replay(make([]byte, 100)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("left longer: %v, want ErrCorrupt", err)
	}
	if w, p := stored(t, s); w != 0 || p != 0 {
		t.Errorf("%d blobs and %d partial ones are left", w, p)
	}
	for _, bad := range []digest.Digest{"", "sha256:zz", "sha256:../../x", "x", "sha256:" + digest.Digest(strings.Repeat("A", 64))} {
		if _, err := s.Ingest(bad, 1); err == nil {
			t.Errorf("Ingest(%q): no error", bad)
		}
		if _, err := s.Open(bad); !errors.Is(err, ErrNotFound) {
			t.Errorf("Open(%q): %v", bad, err)
		}
		if err := s.Drop(bad); err != nil {
			t.Errorf("Drop(%q): %v", bad, err)
		}
	}
}

func TestCorruptBlobIsDropped(t *testing.T) {
	s := open(t)
	d := digest.FromString("right")
	if err := s.Put(d, []byte("right")); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(s.path(d), []byte("wrong"), 0o600)
	if err := s.Verify(t.Context(), d); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Verify: %v", err)
	}
	if _, err := s.Read(d, 100); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Read: %v", err)
	}
	if _, err := s.Read(d, 100); !errors.Is(err, ErrNotFound) {
		t.Errorf("second Read: %v, want ErrNotFound", err)
	}
}

func TestStale(t *testing.T) {
	s := open(t)
	claimed := digest.Digest("")
	d, n, err := s.PutStream(strings.NewReader("stream"), 6, func(d digest.Digest) { claimed = d })
	if err != nil || n != 6 || claimed != d || d != digest.FromString("stream") {
		t.Errorf("PutStream: %s, %d, %v; claimed %s", d, n, err, claimed)
	}
	if _, _, err := s.PutStream(strings.NewReader("stream!"), 6, func(digest.Digest) { t.Error("claimed") }); err == nil {
		t.Error("longer stream: no error")
	}
	os.WriteFile(s.dir+"/ingest/stream-123", nil, 0o600)
	if old, err := s.Stale(time.Now().Add(-time.Hour)); len(old) != 0 || err != nil {
		t.Errorf("nothing is old: %v, %v", old, err)
	}
	old, err := s.Stale(time.Now().Add(time.Hour))
	if err != nil || len(old) != 1 || old[0] != d {
		t.Errorf("Stale = %v, %v", old, err)
	}
	if _, p := stored(t, s); p != 0 {
		t.Errorf("%d partial files are left", p)
	}
}
