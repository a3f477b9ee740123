package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/volume/mount/mounttest"
)

func TestMain(m *testing.M) { mounttest.Main(m) }

// A container makes a chain of folders deeper than a deletion holds descriptors.
func TestRemoveTreeDeep(t *testing.T) {
	top := filepath.Join(t.TempDir(), "top")
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "e"} {
		fd, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 * maxDepth {
			if err := unix.Mkdirat(fd, name, 0o755); err != nil {
				t.Fatal(err)
			}
			next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			fd = next
		}
		unix.Close(fd)
	}
	if err := RemoveTree(top); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Error("it is still there")
	}
}

func TestRemoveTreeKeepsWhatLinksLeadTo(t *testing.T) {
	dir := t.TempDir()
	keep := filepath.Join(dir, "keep")
	os.WriteFile(keep, nil, 0o600)
	top := filepath.Join(dir, "top")
	os.MkdirAll(top+"/a/b", 0o755)
	os.Symlink(keep, top+"/file")
	os.Symlink(dir, top+"/a/dir")
	for range 600 { // more than one page of names
		f, err := os.CreateTemp(top+"/a/b", "x")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for range 2 {
		if err := RemoveTree(top); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(keep); err != nil {
		t.Error(err)
	}
	if err := RemoveTree(filepath.Join(dir, "no/such")); err != nil {
		t.Error("a missing parent:", err)
	}
}

func TestRemoveTreeStopsAtMounts(t *testing.T) {
	mounttest.Need(t)
	dir := t.TempDir()
	os.WriteFile(dir+"/precious", nil, 0o600)
	for _, at := range []string{"", "/a", "/a/b"} {
		top := filepath.Join(t.TempDir(), "top")
		os.MkdirAll(top+"/a/b", 0o755)
		if err := unix.Mount(dir, top+at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if err := RemoveTree(top); !errors.Is(err, ErrMounted) || !strings.Contains(err.Error(), filepath.Base(top+at)) {
			t.Errorf("mount at top%s: %v, want ErrMounted that names it", at, err)
		}
		if _, err := os.Stat(dir + "/precious"); err != nil {
			t.Fatal("deleted through the mount")
		}
		if err := Unmount(top + at); err != nil {
			t.Error(err)
		}
		if err := RemoveTree(top); err != nil {
			t.Error(err)
		}
	}
}
