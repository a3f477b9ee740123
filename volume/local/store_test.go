package local

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/volume/mount/mounttest"
)

func TestMain(m *testing.M) { mounttest.Main(m) }

const (
	volumeA = "pvc-0a"
	volumeB = "pvc-0b"
	mib     = 1 << 20
)

func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHostile_PS29(t *testing.T) {
	root := filepath.Join(t.TempDir(), "volumes")
	s := open(t, root)
	for _, name := range []string{"", ".", "..", "../x", "pvc-../x", "pvc-{{ .Name }}", "pvc-a/b", "/etc", "pvc-", "gone-pvc-a", "pvc-A\n"} {
		if _, _, err := s.Make(name, mib, false); err == nil {
			t.Errorf("%q was made", name)
		}
		if err := s.Remove(name); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// A pod still writes while its volume goes, and has left links to what is not its own.
func TestHostile_PS30(t *testing.T) {
	root := t.TempDir()
	s := open(t, filepath.Join(root, "volumes"))
	outside := filepath.Join(root, "outside")
	if err := os.MkdirAll(filepath.Join(outside, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(outside, "dir", "precious")
	if err := os.WriteFile(precious, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	path, _, err := s.Make(volumeA, mib, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"up": "..", "dir": outside + "/dir", "file": precious} {
		if err := os.Symlink(target, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	pod, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ended below
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = pod.Mkdir("d", 0o755)
				_ = pod.Symlink(outside, "d/link")
				_ = pod.Rename("d", "e")
			}
		}
	}()
	// An error is allowed while there is a writer; what is outside must stay.
	_ = s.Remove(volumeA)
	close(stop)
	<-done
	if err := s.Remove(volumeA); err != nil {
		t.Error(err)
	}
	// The volume itself replaced by a link.
	if err := os.Symlink(outside, path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Make(volumeA, mib, false); err == nil {
		t.Error("a link was taken for the volume")
	}
	if err := s.Remove(volumeA); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("the link is still there")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error("deleted outside of the volumes:", err)
	}
}

// A volume that is made anew has the mode and the group that its pods gave it; one whose making was cut short is finished.
func TestMadeAgain(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := os.Mkdir(filepath.Join(root, coming+volumeA), 0o700); err != nil {
		t.Fatal(err)
	}
	path, _, err := s.Make(volumeA, mib, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o777, os.ModeSetgid | 0o770, 0o700} {
		if mode != 0o777 {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Make(volumeA, mib, false); err != nil {
				t.Fatal(err)
			}
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != mode|os.ModeDir {
			t.Errorf("mode %v, %v; want %v", st.Mode(), err, mode)
		}
	}
	if err := os.Mkdir(filepath.Join(root, coming+volumeA), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(volumeA); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// withQuotas mounts a new ext4 with project quotas, or skips.
func withQuotas(t *testing.T) string {
	t.Helper()
	mounttest.Need(t)
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("needs mkfs.ext4 (e2fsprogs)")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "fs.img"), filepath.Join(dir, "fs")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(64*mib), f.Close(), os.Mkdir(at, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image).CombinedOutput(); err != nil {
		t.Skipf("this mkfs.ext4 makes no project quotas: %v\n%s", err, out)
	}
	dev, err := Attach(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Detach(image); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount(dev, at, "ext4", 0, "prjquota"); err != nil {
		t.Skipf("this kernel mounts no ext4 with prjquota: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	return at
}

// fill writes n bytes to a new file and says what stopped it.
func fill(t *testing.T, path string, n int) error {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(strings.Repeat("x", n))
	return errors.Join(err, f.Sync(), f.Close())
}

func full(err error) bool { return errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOSPC) }

// A folder is held to its size, alone, and grows.
func TestQuota(t *testing.T) {
	s := open(t, filepath.Join(withQuotas(t), "volumes"))
	path, unheld, err := s.Make(volumeA, 2*mib, false)
	if err != nil || unheld != nil {
		t.Fatal(err, unheld)
	}
	other, unheld, err := s.Make(volumeB, 2*mib, false)
	if err != nil || unheld != nil {
		t.Fatal(err, unheld)
	}
	if err := fill(t, filepath.Join(path, "big"), 3*mib); !full(err) {
		t.Errorf("3 MiB into 2: %v", err)
	}
	if err := fill(t, filepath.Join(other, "small"), mib); err != nil {
		t.Errorf("the other volume: %v", err)
	}
	if unheld, err := s.Grow(volumeA, 8*mib); err != nil || unheld != nil {
		t.Fatal(err, unheld)
	}
	if err := fill(t, filepath.Join(path, "big"), 5*mib); err != nil {
		t.Errorf("5 MiB into 8: %v", err)
	}
	for _, name := range []string{volumeA, volumeB} {
		if err := s.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// Where the filesystem cannot, the volume is made and it is said.
func TestNoQuota(t *testing.T) {
	mounttest.Need(t)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	path, unheld, err := open(t, root).Make(volumeA, mib, false)
	if err != nil || !errors.Is(unheld, ErrNoQuota) {
		t.Fatalf("%v, unheld %v", err, unheld)
	}
	if err := fill(t, filepath.Join(path, "big"), 2*mib); err != nil {
		t.Error(err)
	}
}

// Attaching twice is one device; detaching twice is nothing.
func TestLoop(t *testing.T) {
	mounttest.Need(t)
	s := open(t, t.TempDir())
	path, _, err := s.Make(volumeA, mib+1, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Detach(path) })
	first, err := Attach(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Attach(path); err != nil || again != first {
		t.Errorf("attached again: %s %v, want %s", again, err, first)
	}
	if _, err := s.Grow(volumeA, 2*mib); err != nil {
		t.Error(err)
	}
	size := func() string {
		b, _ := os.ReadFile("/sys/block/" + filepath.Base(first) + "/size")
		return strings.TrimSpace(string(b))
	}
	if got := size(); got != "4096" {
		t.Errorf("grown to %s sectors, want 4096", got)
	}
	if err := s.Remove(volumeA); err != nil {
		t.Error(err)
	}
	if err := Detach(path); err != nil {
		t.Error(err)
	}
}
