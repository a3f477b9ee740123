package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/image/imagetest"
)

// yard is a directory with a layer's root in it and things beside that must not change.
type yard struct {
	*testing.T
	top, root string
	dir       *os.File
}

func newYard(t *testing.T) *yard {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: sets owners and trusted xattrs, makes device nodes")
	}
	y := &yard{T: t, top: t.TempDir()}
	y.root = filepath.Join(y.top, "a", "root")
	for _, d := range []string{y.root, filepath.Join(y.top, "etc"), filepath.Join(y.top, "a", "etc")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(y.top, "etc/passwd"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	y.dir = y.openDir(y.root)
	return y
}

func (y *yard) openDir(p string) *os.File {
	y.Helper()
	f, err := os.Open(p)
	if err != nil {
		y.Fatal(err)
	}
	y.Cleanup(func() { f.Close() })
	return f
}

// sketch describes everything beside the root.
func (y *yard) sketch() string {
	var b strings.Builder
	filepath.WalkDir(y.top, func(p string, d os.DirEntry, err error) error {
		if p == y.root {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		unix.Lstat(p, &st)
		content, _ := os.ReadFile(p)
		fmt.Fprintf(&b, "%s %o %d:%d %d %q\n", p, st.Mode, st.Uid, st.Gid, st.Nlink, content)
		return nil
	})
	return b.String()
}

// lay unpacks a layer and checks that nothing outside changed.
func (y *yard) lay(l imagetest.Layer) (Report, error) {
	y.Helper()
	b, err := imagetest.Tar(l)
	if err != nil {
		y.Fatal(err)
	}
	before := y.sketch()
	rep, err := Layer(y.Context(), bytes.NewReader(b), y.dir, NewBudget(Limits{}))
	if after := y.sketch(); after != before {
		y.Errorf("outside of the root changed:\n%s\nwas:\n%s", after, before)
	}
	return rep, err
}

func (y *yard) mustLay(l imagetest.Layer) Report {
	y.Helper()
	rep, err := y.lay(l)
	if err != nil {
		y.Fatal(err)
	}
	return rep
}

// has checks a file's content inside the root.
func (y *yard) has(name, content string) {
	y.Helper()
	got, err := os.ReadFile(filepath.Join(y.root, name))
	if err != nil || string(got) != content {
		y.Errorf("%s = %q, %v; want %q", name, got, err, content)
	}
}

func (y *yard) lacks(name string) {
	y.Helper()
	if _, err := os.Lstat(filepath.Join(y.root, name)); !errors.Is(err, os.ErrNotExist) {
		y.Errorf("%s exists (%v)", name, err)
	}
}

func TestHostile_IM1(t *testing.T) {
	y := newYard(t)
	data := []byte("evil")
	y.mustLay(imagetest.Layer{
		{Name: "../../etc/cron.d/x", Data: data}, {Name: "/etc/abs", Data: data}, {Name: "a/../../../etc/dots", Data: data},
		{Name: "..", Type: tar.TypeDir, Mode: 0o777}, {Name: "/../../etc/passwd", Data: data}, {Name: "./", Type: tar.TypeDir, Mode: 0o711},
	})
	for _, n := range []string{"etc/cron.d/x", "etc/abs", "etc/dots", "etc/passwd"} {
		y.has(n, "evil")
	}
}

func TestHostile_IM2(t *testing.T) {
	y := newYard(t)
	y.mustLay(imagetest.Layer{
		{Name: "etc", Type: tar.TypeSymlink, Link: "/etc"}, {Name: "up", Type: tar.TypeSymlink, Link: "../../etc"},
		{Name: "top", Type: tar.TypeSymlink, Link: y.top + "/etc"},
		{Name: "proc", Type: tar.TypeSymlink, Link: "/proc/self/fd"}, {Name: "loop", Type: tar.TypeSymlink, Link: "loop"},
	})
	for _, n := range []string{"etc/passwd", "up/passwd", "top/passwd", "proc/0/x", "loop/x"} {
		// One at a time into the same root, as a later layer's entries would come.
		y.lay(imagetest.Layer{{Name: n, Data: []byte("evil")}})
	}
	y.lay(imagetest.Layer{{Name: "etc", Type: tar.TypeDir, Mode: 0o777}, {Name: "etc/passwd", Data: []byte("evil")}})
	y.has("etc/passwd", "evil")
}

func TestHostile_IM3(t *testing.T) {
	y := newYard(t)
	before := y.sketch()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // swaps a directory for a symlink to the outside, as fast as it can
		d, l := filepath.Join(y.root, "d"), filepath.Join(y.root, "l")
		os.Mkdir(d, 0o755)
		os.Symlink(filepath.Join(y.top, "etc"), l)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, l, unix.RENAME_EXCHANGE)
			}
		}
	})
	for i := range 300 {
		b, _ := imagetest.Tar(imagetest.Layer{{Name: fmt.Sprintf("d/f%d", i), Data: []byte("evil")}, {Name: "d/passwd", Data: []byte("evil")}, {Name: "d/sub/.wh.passwd"}})
		Layer(t.Context(), bytes.NewReader(b), y.dir, NewBudget(Limits{})) // may fail, must not escape
	}
	close(stop)
	wg.Wait()
	if after := y.sketch(); after != before {
		t.Errorf("outside of the root changed:\n%s\nwas:\n%s", after, before)
	}
}

func TestHostile_IM4(t *testing.T) {
	y := newYard(t)
	target := filepath.Join(y.top, "etc/passwd")
	y.mustLay(imagetest.Layer{
		{Name: "p", Type: tar.TypeSymlink, Link: target, Mode: 0o777, UID: 1234, GID: 1234},
		{Name: "q", Type: tar.TypeSymlink, Link: target},
		{Name: "q", Mode: 0o777, UID: 99, Data: []byte("new")}, // replaces the link itself
		{Name: "d", Type: tar.TypeSymlink, Link: filepath.Join(y.top, "etc")},
		{Name: "d", Type: tar.TypeDir, Mode: 0o777, UID: 99},
		{Name: "f", Type: tar.TypeSymlink, Link: target},
		{Name: "f", Type: tar.TypeFifo, Mode: 0o777, UID: 99},
	})
	y.has("q", "new")
	if st, err := os.Lstat(filepath.Join(y.root, "d")); err != nil || !st.IsDir() {
		t.Errorf("d is %v, %v; want a directory", st, err)
	}
}

func TestHostile_IM5(t *testing.T) {
	for _, to := range []string{"../../../etc/passwd", "../../etc/passwd", "..", "/../x/../../etc", "."} {
		y := newYard(t)
		if _, err := y.lay(imagetest.Layer{{Name: "l", Type: tar.TypeLink, Link: to}}); err == nil && to != "/../x/../../etc" {
			t.Errorf("hard link to %q: no error", to)
		}
		y.lacks("l")
	}
	y := newYard(t)
	rep := y.mustLay(imagetest.Layer{{Name: "l", Type: tar.TypeLink, Link: filepath.Join(y.top, "etc/passwd")}})
	if err := Settle(t.Context(), y.dir, nil, &rep); !errors.Is(err, ErrInvalid) {
		t.Errorf("hard link to an absolute path of the host: %v", err)
	}
	y = newYard(t)
	y.mustLay(imagetest.Layer{{Name: "s", Type: tar.TypeSymlink, Link: "../../etc"}})
	rep, err := y.lay(imagetest.Layer{{Name: "l", Type: tar.TypeLink, Link: "s/passwd"}})
	if err == nil {
		err = Settle(t.Context(), y.dir, nil, &rep)
	}
	if err == nil {
		t.Error("hard link through a symlink to the outside: no error")
	}
	y.lacks("l")
}

func TestHostile_IM6(t *testing.T) {
	for _, n := range []string{".wh..", "d/.wh..", ".wh...", "d/.wh...", ".wh."} {
		y := newYard(t)
		if _, err := y.lay(imagetest.Layer{{Name: "d/", Type: tar.TypeDir}, {Name: "keep", Data: []byte("k")}, {Name: n}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("whiteout %q: %v, want ErrInvalid", n, err)
		}
		y.has("keep", "k")
	}
	y := newYard(t)
	y.mustLay(imagetest.Layer{{Name: "keep", Data: []byte("k")}, {Name: ".wh../x"}, {Name: ".wh..wh..opq"}, {Name: ".wh..wh.plnk"},
		{Name: "../.wh.etc"}, {Name: "d/.wh.gone"}, {Name: "d/.wh..wh..opq"}})
	y.has("keep", "k")
	y.lacks(".wh..wh..opq")
	for p, want := range map[string]string{".": "y", "d": "y"} {
		v := make([]byte, 4)
		n, err := unix.Getxattr(filepath.Join(y.root, p), opaqueXattr, v)
		if err != nil || string(v[:n]) != want {
			t.Errorf("%s: opaque = %q, %v", p, v[:max(n, 0)], err)
		}
	}
	for _, p := range []string{"etc", "d/gone"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(y.root, p), &st); err != nil || !isWhiteout(&st) {
			t.Errorf("%s is no whiteout: %o, %v", p, st.Mode, err)
		}
	}
}

func TestHostile_IM7(t *testing.T) {
	y := newYard(t)
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
	xs := map[string]string{"trusted.overlay.redirect": "/etc", "trusted.overlay.metacopy": "", "trusted.overlay.opaque": "y",
		"user.overlay.redirect": "/etc", "user.overlay.whiteout": "y", "trusted.other": "x", "security.selinux": "x",
		"user.mine": "kept", "security.capability": caps}
	y.mustLay(imagetest.Layer{
		{Name: "d/", Type: tar.TypeDir, Xattrs: xs}, {Name: "d/f", Mode: 0o755, Data: []byte("x"), Xattrs: xs},
		{Name: "d/l", Type: tar.TypeSymlink, Link: "f", Xattrs: map[string]string{"trusted.overlay.redirect": "/etc"}},
		{Name: "d/p", Type: tar.TypeFifo, Xattrs: map[string]string{"trusted.overlay.whiteout": "y"}},
	})
	for _, p := range []string{"d", "d/f", "d/l", "d/p"} {
		b := make([]byte, 4096)
		n, err := unix.Llistxattr(filepath.Join(y.root, p), b)
		if err != nil {
			t.Fatal(err)
		}
		for k := range strings.SplitSeq(string(b[:n]), "\x00") {
			if strings.Contains(k, "overlay") || strings.HasPrefix(k, "trusted") {
				t.Errorf("%s has %s", p, k)
			}
		}
	}
	v := make([]byte, 64)
	if n, err := unix.Getxattr(filepath.Join(y.root, "d/f"), "security.capability", v); err != nil || string(v[:n]) != caps {
		t.Errorf("file capability: %q, %v", v[:max(n, 0)], err)
	}
	if n, err := unix.Getxattr(filepath.Join(y.root, "d/f"), "user.mine", v); err == nil && string(v[:n]) != "kept" {
		t.Errorf("user.mine = %q", v[:n])
	}
	if _, err := y.lay(imagetest.Layer{{Name: "w", Type: tar.TypeChar}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("device 0:0, which overlayfs takes for a whiteout: %v", err)
	}
}

func TestHostile_IM9(t *testing.T) {
	y := newYard(t)
	var b bytes.Buffer
	// A PAX header that claims, and has, far more than any header needs.
	big := strings.Repeat("x", 8<<20)
	rec := fmt.Sprintf("%d path=%s\n", len(big)+len(" path=\n")+7, big)
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "PaxHeaders/x", Typeflag: 'g' - 'g' + '0', Size: int64(len(rec))})
	w.Write([]byte(rec))
	w.Flush()
	raw := b.Bytes()
	raw[156] = 'x' // the type, and a checksum to match
	fixChecksum(raw[:512])
	if _, err := Layer(t.Context(), bytes.NewReader(raw), y.dir, NewBudget(Limits{})); err == nil {
		t.Error("PAX header of 8 MiB: no error")
	}
	// A sparse file that says it is huge ends at the budget, whatever the archive has.
	sparse := sparseTar("huge", 1<<50)
	if _, err := Layer(t.Context(), bytes.NewReader(sparse), y.dir, NewBudget(Limits{})); !errors.Is(err, ErrLimit) {
		t.Errorf("sparse file of 1 PiB: %v, want ErrLimit", err)
	}
	y2 := newYard(t)
	rep, err := Layer(t.Context(), bytes.NewReader(sparseTar("ok", 64<<20)), y2.dir, NewBudget(Limits{}))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(y2.root, "ok"))
	if err != nil || st.Size() != 64<<20 || rep.Bytes > 1<<20 {
		t.Errorf("sparse file: %v, %v, takes %d bytes", st, err, rep.Bytes)
	}
}

// sparseTar is an archive of one old GNU sparse file of the given size with four
// bytes of data at its start.
func sparseTar(name string, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x00")
	copy(h[108:], "0000000\x00")
	copy(h[116:], "0000000\x00")
	copy(h[124:], "00000000004\x00")
	copy(h[136:], "00000000000\x00")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], "00000000000\x0000000000004\x00") // offset, length
	if size < 1<<33 {
		copy(h[483:], fmt.Sprintf("%011o\x00", size))
	} else { // base 256
		h[483] = 0x80
		for i := range 8 {
			h[483+11-i] = byte(size >> (8 * i))
		}
	}
	fixChecksum(h)
	out := append(h, []byte("data")...)
	return append(out, make([]byte, 508+1024)...)
}

func fixChecksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestHostile_IM10(t *testing.T) {
	const out = 64 << 20
	lim := Limits{Bytes: 8 << 20}
	bomb := func(w io.WriteCloser) {
		tw := tar.NewWriter(w)
		tw.WriteHeader(&tar.Header{Name: "zeros", Size: out, Mode: 0o644})
		for range out >> 20 {
			tw.Write(make([]byte, 1<<20))
		}
		tw.Close()
		w.Close()
	}
	var g, z bytes.Buffer
	bomb(gzip.NewWriter(&g))
	zw, _ := zstd.NewWriter(&z)
	bomb(zw)
	for name, b := range map[string][]byte{"gzip": g.Bytes(), "zstd": z.Bytes()} {
		y := newYard(t)
		_, err := Layer(t.Context(), bytes.NewReader(b), y.dir, NewBudget(lim))
		if !errors.Is(err, ErrLimit) {
			t.Errorf("%s bomb: %v, want ErrLimit", name, err)
		}
		used, _, _ := Usage(t.Context(), int(y.dir.Fd()))
		if used > uint64(lim.Bytes)+(1<<20) {
			t.Errorf("%s bomb: %d bytes on disk, limit %d", name, used, lim.Bytes)
		}
	}
	// Bytes after the archive's end count as well, and so does a full disk.
	y := newYard(t)
	empty, _ := imagetest.Tar(nil)
	if _, err := Layer(t.Context(), io.MultiReader(bytes.NewReader(empty), io.LimitReader(zeroReader{}, out)), y.dir, NewBudget(lim)); !errors.Is(err, ErrLimit) {
		t.Errorf("64 MiB behind the archive: %v, want ErrLimit", err)
	}
	if _, err := Layer(t.Context(), bytes.NewReader(empty), y.dir, NewBudget(Limits{KeepFree: 1 << 62})); !errors.Is(err, ErrLimit) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("disk nearly full: %v, want ErrLimit and ENOSPC", err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestHostile_IM11(t *testing.T) {
	lim := Limits{Entries: 1000, Depth: 100}
	var many imagetest.Layer
	for i := range 2000 {
		many = append(many, imagetest.Entry{Name: fmt.Sprintf("d/%d", i)})
	}
	for name, c := range map[string]struct {
		l    imagetest.Layer
		kind error
	}{
		"entries":   {many, ErrLimit},
		"depth":     {imagetest.Layer{{Name: strings.Repeat("d/", 2000) + "f"}}, ErrLimit},
		"long name": {imagetest.Layer{{Name: strings.Repeat("n", 64<<10)}}, ErrInvalid},
		"component": {imagetest.Layer{{Name: strings.Repeat("n", 256)}}, ErrInvalid},
		"long link": {imagetest.Layer{{Name: "l", Type: tar.TypeSymlink, Link: strings.Repeat("n", 64<<10)}}, ErrInvalid},
		"whiteouts": {func() (l imagetest.Layer) {
			for i := range 2000 {
				l = append(l, imagetest.Entry{Name: fmt.Sprintf(".wh.%d", i)})
			}
			return l
		}(), ErrLimit},
		"uid":       {imagetest.Layer{{Name: "f", UID: -1}}, ErrInvalid},
		"huge uid":  {imagetest.Layer{{Name: "f", UID: 1 << 32}}, ErrInvalid},
		"device":    {imagetest.Layer{{Name: "f", Type: tar.TypeBlock, Major: 1 << 20}}, ErrInvalid},
		"type":      {imagetest.Layer{{Name: "f", Type: 'Z'}}, ErrInvalid},
		"root link": {imagetest.Layer{{Name: "/", Type: tar.TypeSymlink, Link: "/etc"}}, ErrInvalid},
		"truncated": {nil, ErrInvalid},
	} {
		y := newYard(t)
		b, err := imagetest.Tar(c.l)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == "truncated" {
			b, _ = imagetest.Tar(imagetest.Layer{{Name: "f", Data: make([]byte, 10_000)}})
			b = b[:5000]
		}
		if _, err := Layer(t.Context(), bytes.NewReader(b), y.dir, NewBudget(lim)); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v, want %v", name, err, c.kind)
		}
	}
}

func TestCancelledUnpackEnds(t *testing.T) {
	y := newYard(t)
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	go func() {
		tw := tar.NewWriter(pw)
		tw.WriteHeader(&tar.Header{Name: "endless", Size: 1 << 40})
		for {
			if _, err := tw.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	go func() {
		for {
			if st, err := os.Stat(filepath.Join(y.root, "endless")); err == nil && st.Size() > 1<<20 {
				cancel()
				return
			}
		}
	}()
	_, err := Layer(ctx, pr, y.dir, NewBudget(Limits{}))
	pr.Close()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
