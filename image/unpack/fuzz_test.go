package unpack

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"keelson.dev/keelson/image/imagetest"
)

// FuzzLayer lays any bytes out and settles them on a layer of symlinks: nothing
// outside the root may change, nothing may panic.
func FuzzLayer(f *testing.F) {
	for _, l := range []imagetest.Layer{
		{{Name: "a/b", Data: []byte("x")}, {Name: "l", Type: tar.TypeLink, Link: "a/b"}},
		{{Name: "s", Type: tar.TypeSymlink, Link: "/etc"}, {Name: "s/passwd", Data: []byte("x")}},
		{{Name: "../x", Data: []byte("x")}, {Name: ".wh.y"}, {Name: "d/.wh..wh..opq"}},
		{{Name: "lower/x"}, {Name: "l", Type: tar.TypeLink, Link: "lower/f"}},
		{{Name: "d/", Type: tar.TypeDir, Xattrs: map[string]string{"user.a": "b"}}, {Name: "c", Type: tar.TypeChar, Major: 1, Minor: 3}},
	} {
		b, err := imagetest.Tar(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(sparseTar("sparse", 1<<20))
	f.Fuzz(func(t *testing.T, b []byte) {
		y := newYard(t)
		low := filepath.Join(y.top, "low")
		os.MkdirAll(filepath.Join(low, "real"), 0o755)
		os.Symlink("/etc", filepath.Join(low, "s"))
		os.Symlink("real", filepath.Join(low, "lower"))
		os.Symlink("../../..", filepath.Join(low, "d"))
		os.WriteFile(filepath.Join(low, "real/f"), []byte("lower"), 0o644)
		before := y.sketch()
		rep, err := Layer(t.Context(), bytes.NewReader(b), y.dir, NewBudget(Limits{Bytes: 1 << 20, Entries: 1000}))
		if err == nil {
			err = Settle(t.Context(), y.dir, []*os.File{y.openDir(low)}, &rep)
		}
		if after := y.sketch(); after != before {
			t.Fatalf("outside of the root changed (%v):\n%s\nwas:\n%s", err, after, before)
		}
	})
}
