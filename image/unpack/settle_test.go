package unpack

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/image/imagetest"
)

// stack lays layers bottom first, settles each, and gives their roots, bottom first.
func stack(t *testing.T, layers ...imagetest.Layer) (roots []string, err error) {
	t.Helper()
	var below []*os.File // topmost first
	for _, l := range layers {
		y := newYard(t)
		rep := y.mustLay(l)
		before := y.sketch()
		if err := Settle(t.Context(), y.dir, below, &rep); err != nil {
			return nil, err
		}
		if after := y.sketch(); after != before {
			t.Errorf("settling changed the outside:\n%s\nwas:\n%s", after, before)
		}
		below = append([]*os.File{y.dir}, below...)
		roots = append(roots, y.root)
	}
	return roots, nil
}

func lstat(t *testing.T, p string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		t.Errorf("lstat %s: %v", p, err)
	}
	return st
}

func TestFaithful(t *testing.T) {
	y := newYard(t)
	y.mustLay(imagetest.Layer{
		{Name: "./", Type: tar.TypeDir, Mode: 0o750, UID: 7, GID: 8},
		{Name: "su", Mode: 0o4755, UID: 0, Data: []byte("#!")}, {Name: "sg", Mode: 0o2755, UID: 33, GID: 34},
		{Name: "tmp/", Type: tar.TypeDir, Mode: 0o1777}, {Name: "tmp/in", Data: []byte("x")},
		{Name: "hard", Type: tar.TypeLink, Link: "su"}, {Name: "hard2", Type: tar.TypeLink, Link: "/su"},
		{Name: "sym", Type: tar.TypeSymlink, Link: "/su", UID: 5, GID: 6},
		{Name: "null", Type: tar.TypeChar, Mode: 0o666, Major: 1, Minor: 3},
		{Name: "blk", Type: tar.TypeBlock, Mode: 0o660, Major: 7, Minor: 300, GID: 6},
		{Name: "fifo", Type: tar.TypeFifo, Mode: 0o622},
		{Name: "twice", Data: []byte("first")}, {Name: "twice", Data: []byte("second"), Mode: 0o600},
		{Name: "dir2file/", Type: tar.TypeDir}, {Name: "dir2file/x"}, {Name: "dir2file", Data: []byte("file")},
		{Name: "empty"},
	})
	for name, want := range map[string]struct {
		mode     uint32
		uid, gid uint32
		nlink    uint64
	}{
		".": {unix.S_IFDIR | 0o750, 7, 8, 0}, "su": {unix.S_IFREG | 0o4755, 0, 0, 3}, "sg": {unix.S_IFREG | 0o2755, 33, 34, 1},
		"tmp": {unix.S_IFDIR | 0o1777, 0, 0, 0}, "hard": {unix.S_IFREG | 0o4755, 0, 0, 3}, "sym": {unix.S_IFLNK | 0o777, 5, 6, 1},
		"null": {unix.S_IFCHR | 0o666, 0, 0, 1}, "blk": {unix.S_IFBLK | 0o660, 0, 6, 1}, "fifo": {unix.S_IFIFO | 0o622, 0, 0, 1},
		"twice": {unix.S_IFREG | 0o600, 0, 0, 1}, "dir2file": {unix.S_IFREG | 0o644, 0, 0, 1}, "empty": {unix.S_IFREG | 0o644, 0, 0, 1},
	} {
		st := lstat(t, filepath.Join(y.root, name))
		if st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid || want.nlink > 0 && uint64(st.Nlink) != want.nlink {
			t.Errorf("%s: mode %o owner %d:%d links %d, want %o %d:%d %d", name, st.Mode, st.Uid, st.Gid, st.Nlink, want.mode, want.uid, want.gid, want.nlink)
		}
		if at := time.Unix(st.Mtim.Unix()); !at.Equal(time.Unix(1700000000, 0)) {
			t.Errorf("%s: time %s", name, at)
		}
	}
	y.has("twice", "second")
	if st := lstat(t, filepath.Join(y.root, "blk")); unix.Major(uint64(st.Rdev)) != 7 || unix.Minor(uint64(st.Rdev)) != 300 {
		t.Errorf("blk: device %d", st.Rdev)
	}
}

func TestWhiteoutsActOnLowerLayersOnly(t *testing.T) {
	y := newYard(t)
	y.mustLay(imagetest.Layer{
		{Name: "a", Data: []byte("a")}, {Name: ".wh.a"}, // stays: the marker is for lower layers
		{Name: ".wh.b"}, {Name: "b", Data: []byte("b")}, // replaces the marker
		{Name: ".wh.c"}, {Name: "c/", Type: tar.TypeDir}, {Name: "c/x"}, // an opaque directory
		{Name: ".wh.d"}, {Name: "d/x"}, // the same, implied
		{Name: "e/", Type: tar.TypeDir}, {Name: ".wh.e"},
	})
	y.has("a", "a")
	y.has("b", "b")
	for _, d := range []string{"c", "d", "e"} {
		v := make([]byte, 4)
		if n, err := unix.Getxattr(filepath.Join(y.root, d), opaqueXattr, v); err != nil || string(v[:n]) != "y" {
			t.Errorf("%s is not opaque: %v", d, err)
		}
	}
}

func TestImpliedDirectoriesInherit(t *testing.T) {
	roots, err := stack(t,
		imagetest.Layer{{Name: "./", Type: tar.TypeDir, Mode: 0o711, GID: 3}, {Name: "tmp/", Type: tar.TypeDir, Mode: 0o1777},
			{Name: "home/", Type: tar.TypeDir, Mode: 0o750, UID: 1}, {Name: "home/u/", Type: tar.TypeDir, Mode: 0o700, UID: 1000, Xattrs: map[string]string{"user.x": "1"}},
			{Name: "gone/", Type: tar.TypeDir, Mode: 0o700}, {Name: "op/sub/", Type: tar.TypeDir, Mode: 0o700}},
		imagetest.Layer{{Name: ".wh.gone"}, {Name: "op/.wh..wh..opq"}, {Name: "other"}},
		imagetest.Layer{{Name: "tmp/x"}, {Name: "home/u/f"}, {Name: "gone/f"}, {Name: "op/sub/f"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	top := roots[2]
	for name, want := range map[string][3]uint32{".": {0o711, 0, 3}, "tmp": {0o1777, 0, 0}, "home": {0o750, 1, 0},
		"home/u": {0o700, 1000, 0}, "gone": {0o755, 0, 0}, "op/sub": {0o755, 0, 0}} {
		st := lstat(t, filepath.Join(top, name))
		if got := [3]uint32{st.Mode & 0o7777, st.Uid, st.Gid}; got != want {
			t.Errorf("%s: mode and owner %o, want %o", name, got, want)
		}
	}
}

func TestImpliedDirectoryOverSymlink(t *testing.T) {
	roots, err := stack(t,
		imagetest.Layer{{Name: "usr/bin/", Type: tar.TypeDir, Mode: 0o751}, {Name: "bin", Type: tar.TypeSymlink, Link: "usr/bin"},
			{Name: "etc", Type: tar.TypeSymlink, Link: "/etc"}, {Name: "abs", Type: tar.TypeSymlink, Link: "/bin/../../../../usr"},
			{Name: "loop", Type: tar.TypeSymlink, Link: "pool"}, {Name: "pool", Type: tar.TypeSymlink, Link: "loop"}},
		imagetest.Layer{{Name: "bin/tool", Data: []byte("t")}, {Name: "abs/share/doc", Data: []byte("d")}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"usr/bin/tool", "usr/share/doc"} {
		if _, err := os.Stat(filepath.Join(roots[1], p)); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []string{"bin", "abs"} {
		if _, err := os.Lstat(filepath.Join(roots[1], p)); !os.IsNotExist(err) {
			t.Errorf("%s still hides the symlink below: %v", p, err)
		}
	}
	if st := lstat(t, filepath.Join(roots[1], "usr/bin")); st.Mode&0o7777 != 0o751 {
		t.Errorf("usr/bin: mode %o", st.Mode)
	}
	for _, base := range []imagetest.Layer{
		{{Name: "d", Type: tar.TypeSymlink, Link: "e"}, {Name: "e", Type: tar.TypeSymlink, Link: "d"}},
		{{Name: "d", Type: tar.TypeSymlink, Link: "d/x"}},
		{{Name: "d", Type: tar.TypeSymlink, Link: "/etc"}, {Name: "etc", Type: tar.TypeSymlink, Link: "/etc"}},
		{{Name: "d", Type: tar.TypeSymlink, Link: "../../../../../../etc"}},
	} {
		stack(t, base, imagetest.Layer{{Name: "d/passwd", Data: []byte("evil")}}) // may fail; stack checks the outside
	}
}

func TestHardLinkToLowerLayer(t *testing.T) {
	roots, err := stack(t,
		imagetest.Layer{{Name: "d/", Type: tar.TypeDir, Mode: 0o700}, {Name: "d/f", Mode: 0o4711, UID: 5, Data: []byte("lower")}, {Name: "dev", Type: tar.TypeChar, Major: 1, Minor: 3}},
		imagetest.Layer{{Name: "l", Type: tar.TypeLink, Link: "d/f"}, {Name: "m/l2", Type: tar.TypeLink, Link: "l"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"l", "d/f", "m/l2"} {
		st := lstat(t, filepath.Join(roots[1], p))
		if st.Nlink != 3 || st.Mode&0o7777 != 0o4711 || st.Uid != 5 {
			t.Errorf("%s: links %d mode %o uid %d", p, st.Nlink, st.Mode, st.Uid)
		}
	}
	if st := lstat(t, filepath.Join(roots[1], "d")); st.Mode&0o7777 != 0o700 {
		t.Errorf("d: mode %o", st.Mode)
	}
	for _, to := range []string{"nothing", "dev", "d"} {
		if _, err := stack(t, imagetest.Layer{{Name: "d/", Type: tar.TypeDir}, {Name: "dev", Type: tar.TypeChar, Major: 1, Minor: 3}},
			imagetest.Layer{{Name: "l", Type: tar.TypeLink, Link: to}}); err == nil {
			t.Errorf("hard link to %s of a lower layer: no error", to)
		}
	}
}
