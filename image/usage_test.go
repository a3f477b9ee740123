package image_test

import (
	"archive/tar"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"keelson.dev/keelson/image/imagetest"
)

// TestUsageIsWhatIsOnDisk: the image filesystem's account equals what a walk
// over the store's folders finds, after every change: image garbage collection
// goes by it.
func TestUsageIsWhatIsOnDisk(t *testing.T) {
	b := newBench(t)
	base := imagetest.Layer{{Name: "a/", Type: tar.TypeDir}, {Name: "a/big", Data: make([]byte, 300_000)}, {Name: "a/small", Data: []byte("x")},
		{Name: "a/again", Type: tar.TypeLink, Link: "a/big"}, {Name: "a/link", Type: tar.TypeSymlink, Link: "big"}, {Name: "a/empty"}}
	for ref, more := range map[string]string{"x:1": "one", "y:1": "two"} { // two images that share a layer
		img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{base, {{Name: "own", Data: []byte(more)}}}})
		b.add(ref, img, err)
	}
	check := func(when string, some bool) {
		t.Helper()
		bytes, inodes := b.walk("layers")
		files, count := b.blobs()
		u, err := b.store.Usage()
		if err != nil || u.Bytes != bytes+files || u.Inodes != inodes+count || some != (u.Bytes > 0) {
			t.Errorf("%s: the account is %d bytes in %d inodes, %v; on disk are %d in %d", when, u.Bytes, u.Inodes, err, bytes+files, inodes+count)
		}
	}
	check("empty", false)
	b.pull("x:1")
	check("one image", true)
	b.pull("y:1")
	check("two images", true)
	if err := b.store.Remove(t.Context(), "x:1"); err != nil {
		t.Fatal(err)
	}
	check("one removed", true)
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	check("after a restart", true)
	if err := b.store.Remove(t.Context(), "y:1"); err != nil {
		t.Fatal(err)
	}
	check("both removed", false)
}

// walk adds up the blocks, in bytes, and the inodes of what is below a folder
// of the store; hard links count once.
func (b *bench) walk(dir string) (bytes, inodes uint64) {
	b.Helper()
	top := filepath.Join(b.root, dir)
	seen := map[uint64]bool{}
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == top {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st, _ := fi.Sys().(*syscall.Stat_t)
		if !seen[st.Ino] {
			seen[st.Ino] = true
			bytes, inodes = bytes+uint64(st.Blocks)*512, inodes+1
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return bytes, inodes
}

// blobs adds up the sizes of the stored blobs and counts them.
func (b *bench) blobs() (bytes, count uint64) {
	b.Helper()
	err := filepath.WalkDir(filepath.Join(b.root, "blobs"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		bytes, count = bytes+uint64(fi.Size()), count+1
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return bytes, count
}
