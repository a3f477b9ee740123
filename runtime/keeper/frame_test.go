package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFrame(t *testing.T) {
	h := Header{Version: Version, Op: OpRun, Seq: 77, Reply: true, Failed: true}
	msg, err := EncodeFrame(h, Target{ID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	got, body, err := DecodeFrame(msg)
	if err != nil || got != h || string(body) != `{"id":"c"}` {
		t.Errorf("%+v, %s, %v", got, body, err)
	}
	if _, err := EncodeFrame(h, strings.Repeat("x", MaxFrame)); err == nil {
		t.Error("a frame larger than MaxFrame was made")
	}
	for name, bad := range map[string][]byte{
		"empty":    {},
		"short":    msg[:headerSize-1],
		"magic":    append([]byte("XX"), msg[2:]...),
		"op":       replace(msg, 3, 0x30),
		"flags":    replace(msg, 8, 4),
		"reserved": replace(msg, 10, 1),
		"not JSON": append(bytes.Clone(msg), '}'),
	} {
		if _, _, err := DecodeFrame(bad); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func replace(msg []byte, at int, with byte) []byte {
	out := bytes.Clone(msg)
	out[at] = with
	return out
}

func FuzzDecodeFrame(f *testing.F) {
	msg, err := EncodeFrame(Header{Version: 1, Op: OpExec, Seq: 3}, Exec{ID: "c", Stdio: "oe"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, body, err := DecodeFrame(msg)
		if err != nil {
			return
		}
		var in any
		if len(body) > 0 {
			in = body
		}
		again, err := EncodeFrame(h, in)
		if err != nil {
			if len(msg) > MaxFrame/2 {
				return // JSON may grow when it is made safe for HTML
			}
			t.Fatal(err)
		}
		h2, body2, err := DecodeFrame(again)
		if err != nil || h2 != h {
			t.Fatalf("%+v came back as %+v, %v", h, h2, err)
		}
		var compact, want bytes.Buffer
		if len(body) > 0 {
			if err := json.Compact(&compact, body); err != nil {
				t.Fatal(err)
			}
		}
		if json.HTMLEscape(&want, compact.Bytes()); !bytes.Equal(want.Bytes(), body2) {
			t.Fatalf("%q came back as %q", body, body2)
		}
	})
}

// pair is two connected ends.
func pair(t *testing.T) (*Conn, *Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]*Conn{}
	for i, sock := range []*net.UnixConn{a, b} {
		if ends[i], err = NewConn(sock); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sock.Close() })
	}
	return ends[0], ends[1]
}

func TestConnPassesFiles(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.Send(Header{Op: OpExec, Seq: 1}, Exec{ID: "c"}, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	h, body, files, err := b.Receive()
	if err != nil || h.Op != OpExec || h.Version != Version || len(files) != 1 || !strings.Contains(string(body), `"c"`) {
		t.Fatalf("%+v %s %v %v", h, body, files, err)
	}
	if _, err := files[0].WriteString("through"); err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "through" {
		t.Errorf("%q, %v", text, err)
	}
	a.Close()
	if _, _, _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the other side is gone: %v", err)
	}
}
