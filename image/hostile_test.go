package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/image/imagetest"
)

func TestHostile_IM8(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{{{Name: "su", Mode: 0o4755, Data: []byte("#!/bin/sh\n")}}}})
	b.add("x:1", img, err)
	b.pull("x:1")
	root := b.mount("c1", "x:1")
	if st, err := os.Stat(filepath.Join(root, "su")); err != nil || st.Mode()&os.ModeSetuid == 0 {
		t.Fatalf("the container's own view lost set-uid: %v, %v", st, err)
	}
	filepath.WalkDir(b.root, func(p string, d os.DirEntry, err error) error {
		if d.Name() != "su" {
			return nil
		}
		// Every way to the file must pass a directory that others cannot.
		for dir := filepath.Dir(p); len(dir) >= len(b.root); dir = filepath.Dir(dir) {
			if st, err := os.Stat(dir); err == nil && st.Mode().Perm()&0o011 == 0 {
				return nil
			}
		}
		t.Errorf("%s can be reached by every user", p)
		return nil
	})
	for _, dir := range []string{"layers", "blobs", "ingest", "trash"} {
		if st, err := os.Stat(filepath.Join(b.root, dir)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want 0700", dir, st.Mode(), err)
		}
	}
}

func TestHostile_IM20(t *testing.T) {
	b := newBench(t)
	for i, c := range []v1.Config{{Env: []string{"HOME=/\nroot::0:0"}}, {User: "x\nroot::0:0:"}, {User: "a b"}, {User: "\x00"}, {Env: []string{"A=\x00"}},
		{Cmd: []string{"a\x00b"}}} {
		img, err := imagetest.Build(imagetest.Spec{Config: c, Layers: []imagetest.Layer{imagetest.Files(map[string]string{"f": "x"})}})
		ref := fmt.Sprintf("x:%d", i)
		b.add(ref, img, err)
		b.fails(ref, nil, image.ErrInvalidImage)
	}
	root := t.TempDir()
	for _, u := range []string{"root\n", "x\nroot::0:0:", "a b", "0:0:0", "r\toot", strings.Repeat("u", 4096), "\x7f"} {
		if got, err := image.ResolveUser(root, u); !errors.Is(err, image.ErrUser) {
			t.Errorf("ResolveUser(%.20q) = %+v, %v; want ErrUser", u, got, err)
		}
	}
}

func TestHostile_IM21(t *testing.T) {
	for name, make := range map[string]func(p string) error{
		"symlink to host": func(p string) error { return os.Symlink("/etc/passwd", p) },
		"relative":        func(p string) error { return os.Symlink("../../../../../../etc/passwd", p) },
		"magic link":      func(p string) error { return os.Symlink("/proc/self/fd/0", p) },
		"fifo":            func(p string) error { return unix.Mkfifo(p, 0o666) },
		"directory":       func(p string) error { return os.Mkdir(p, 0o755) },
		"loop":            func(p string) error { return os.Symlink(filepath.Base(p), p) },
		"socket": func(p string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err == nil {
				defer unix.Close(fd)
				err = unix.Mknod(p, unix.S_IFSOCK|0o666, 0)
			}
			return err
		},
		"10 GB": func(p string) error {
			if err := os.WriteFile(p, []byte("nobody:x:1:1::/:\n"), 0o644); err != nil {
				return err
			}
			return os.Truncate(p, 10<<30)
		},
		"device": func(p string) error {
			if os.Geteuid() != 0 {
				return errors.ErrUnsupported
			}
			return unix.Mknod(p, unix.S_IFCHR|0o666, 1<<8|5) // /dev/zero
		},
	} {
		for _, file := range []string{"passwd", "group"} {
			root := t.TempDir()
			os.Mkdir(filepath.Join(root, "etc"), 0o755)
			os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("me:x:7:7::/:\n"), 0o644)
			os.Remove(filepath.Join(root, "etc", file))
			if err := make(filepath.Join(root, "etc", file)); errors.Is(err, errors.ErrUnsupported) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			// "root" and "daemon" are in the host's file, and "nobody" behind the limit.
			for _, u := range []string{"daemon", "nobody", "7:daemon"} {
				if got, err := image.ResolveUser(root, u); err == nil {
					t.Errorf("%s as /etc/%s: ResolveUser(%q) = %+v", name, file, u, got)
				}
			}
		}
	}
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, "usr/etc"), 0o755)
	os.Symlink("/usr/etc", filepath.Join(root, "etc")) // absolute, but inside the image
	os.WriteFile(filepath.Join(root, "usr/etc/passwd"), []byte("me:x:7:8::/home/me:\n"), 0o644)
	if u, err := image.ResolveUser(root, "me"); err != nil || u.UID != 7 || u.Home != "/home/me" {
		t.Errorf("through a symlink inside the image: %+v, %v", u, err)
	}
}

func TestHostile_IM22(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(filepath.Join(root, "etc"), 0o755)
	os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/root:\nbig:x:4294967296:0::/:\nneg:x:-1:0::/:\nhex:x:0x0:0::/:\nshort:x\n\n#c:x:0:0\n9to5:x:905:905::/:\n"), 0o644)
	os.WriteFile(filepath.Join(root, "etc/group"), []byte("wheel:x:10:root,9to5\nbig:x:4294967296:\n"), 0o644)
	for _, u := range []string{"4294967296", "2147483648", "-1", "+0", "0x0", "0X0", "٠", "０", "1e3", "18446744073709551616", "0:4294967296", "0:-1", "0:0x1",
		"big", "neg", "hex", "short", "#c", "0:big", "nobody", ":nobody"} {
		got, err := image.ResolveUser(root, u)
		if !errors.Is(err, image.ErrUser) {
			t.Errorf("ResolveUser(%q) = %+v, %v; want ErrUser", u, got, err)
		}
	}
	for u, want := range map[string]image.User{
		"":           {Name: "root", Home: "/root", AdditionalGIDs: []uint32{10}},
		"0":          {Name: "root", Home: "/root", AdditionalGIDs: []uint32{10}},
		"00":         {Name: "root", Home: "/root", AdditionalGIDs: []uint32{10}},
		"2147483647": {UID: 2147483647}, "5:6": {UID: 5, GID: 6},
		"root:wheel": {Name: "root", Home: "/root", GID: 10}, "1000:wheel": {UID: 1000, GID: 10},
		"9to5": {Name: "9to5", UID: 905, GID: 905, Home: "/", AdditionalGIDs: []uint32{10}},
		":10":  {Name: "root", Home: "/root", GID: 10},
	} {
		got, err := image.ResolveUser(root, u)
		if err != nil || got.UID != want.UID || got.GID != want.GID || got.Name != want.Name || got.Home != want.Home || !slices.Equal(got.AdditionalGIDs, want.AdditionalGIDs) {
			t.Errorf("ResolveUser(%q) = %+v, %v; want %+v", u, got, err, want)
		}
	}
}

// TestHostile_IM37 kills a process with kill -9 at many moments of a pull and
// checks that the store opens clean and the pull completes.
func TestHostile_IM37(t *testing.T) {
	b := newBench(t)
	b.store.Close()
	var layers []imagetest.Layer
	for i := range 4 {
		var l imagetest.Layer
		for j := range 60 {
			l = append(l, imagetest.Entry{Name: fmt.Sprintf("d%d/f%d", i, j), Data: []byte(random(20_000 + i*60 + j))})
		}
		layers = append(layers, l)
	}
	img, err := imagetest.Build(imagetest.Spec{Layers: layers})
	b.add("x:1", img, err)
	b.reg.SetFaults(imagetest.On("/blobs/", imagetest.Trickle(64<<10, 2*time.Millisecond)))
	killed := 0
	for i := range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPullHelper$")
		cmd.Env = append(os.Environ(), "KEELSON_PULL_ROOT="+b.root, "KEELSON_PULL_CERTS="+b.certs)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+15*i) * time.Millisecond) // any moment will do: each is a case of its own
		cmd.Process.Kill()
		cmd.Wait()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			killed++
		}
		b.open()
		b.clean()
		if got, err := b.store.Get("x:1"); err == nil {
			b.checkTree(got.ID, layers)
		} else if dirs, _ := filepath.Glob(filepath.Join(b.root, "layers/*")); len(dirs) > 0 {
			t.Errorf("layers without image after kill %d: %q", i, dirs)
		}
		if i%3 == 2 {
			b.checkTree(b.pull("x:1").ID, layers)
			if err := b.store.Verify(t.Context(), "x:1"); err != nil {
				t.Error(err)
			}
			b.store.Remove(t.Context(), "x:1")
		}
		if err := b.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if killed < 6 {
		t.Errorf("only %d of 12 pulls were killed: the test shows little", killed)
	}
	b.open()
	b.reg.SetFaults()
	b.checkTree(b.pull("x:1").ID, layers)
}

// A download that a kill cut short goes on where it stopped.
func TestHostile_IM37_Resume(t *testing.T) {
	b := newBench(t)
	img, err := tiny(random(2 << 20))
	b.add("x:1", img, err)
	layers, _ := img.Layers()
	d, _ := layers[0].Digest()
	rc, _ := layers[0].Compressed()
	blob, _ := io.ReadAll(rc)
	half := int64(len(blob) / 2)
	for name, left := range map[string][]byte{"good": blob[:half], "garbage": make([]byte, half)} {
		os.WriteFile(filepath.Join(b.root, "ingest", "sha256-"+d.Hex), left, 0o600)
		b.reg.Requests()
		b.pull("x:1")
		var ranges []string
		for _, r := range b.reg.Requests() {
			if strings.HasSuffix(r.Path, d.Hex) {
				ranges = append(ranges, r.Range)
			}
		}
		want := []string{fmt.Sprintf("bytes=%d-", half)}
		if name == "garbage" { // begins as if it were good, or not at all; then from the start
			if len(ranges) == 0 || ranges[len(ranges)-1] != "" {
				t.Errorf("garbage: requests with ranges %q; want the last without", ranges)
			}
		} else if !slices.Equal(ranges, want) {
			t.Errorf("requests with ranges %q, want %q", ranges, want)
		}
		if err := b.store.Verify(t.Context(), "x:1"); err != nil {
			t.Error(err)
		}
		b.store.Remove(t.Context(), "x:1")
	}
}

// checkTree mounts an image and compares all files with what was built.
func (b *bench) checkTree(id string, layers []imagetest.Layer) {
	b.Helper()
	root, err := b.store.MountRootfs(b.Context(), "check", id, image.RootfsOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer b.store.UnmountRootfs(b.Context(), "check")
	for _, l := range layers {
		for _, e := range l {
			if got, err := os.ReadFile(filepath.Join(root, e.Name)); !bytes.Equal(got, e.Data) {
				b.Errorf("%s: %d bytes, %v; want %d bytes", e.Name, len(got), err, len(e.Data))
			}
		}
	}
}

// TestPullHelper is the process that TestHostile_IM37 kills.
func TestPullHelper(t *testing.T) {
	root := os.Getenv("KEELSON_PULL_ROOT")
	if root == "" {
		t.Skip("runs only as another test's child")
	}
	s, err := image.Open(image.Config{Root: root, CertsDirs: []string{os.Getenv("KEELSON_PULL_CERTS")}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for {
		if _, err := s.Pull(t.Context(), "x:1", nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(t.Context(), "x:1"); err != nil {
			t.Fatal(err)
		}
	}
}

// A power cut is a reboot: the boot's ledger is not believed, the durable one is.
func TestPowerCutForgetsWhatWasNotSynced(t *testing.T) {
	b := newBench(t)
	img, err := tiny("synced")
	b.add("a:1", img, err)
	b.pull("a:1")
	b.store.Close() // syncs
	durable, err := os.ReadFile(filepath.Join(b.root, "images.json"))
	if err != nil {
		t.Fatal(err)
	}
	b.open()
	img, err = tiny("late")
	b.add("b:1", img, err)
	b.pull("b:1")
	b.store.Close()
	// As if power had failed before b was synced: the durable ledger is the old one,
	// and the one of the other boot does not count.
	old, _ := filepath.Glob(filepath.Join(b.root, "images-*.json"))
	if len(old) != 1 {
		t.Fatalf("ledgers: %q", old)
	}
	os.Rename(old[0], filepath.Join(b.root, "images-00000000-0000-0000-0000-000000000000.json"))
	os.WriteFile(filepath.Join(b.root, "images.json"), durable, 0o600)
	b.open()
	if _, err := b.store.Get("a:1"); err != nil {
		t.Errorf("synced image: %v", err)
	}
	if _, err := b.store.Get("b:1"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("image that was not synced: %v", err)
	}
	if dirs, _ := filepath.Glob(filepath.Join(b.root, "layers/*")); len(dirs) != 1 {
		t.Errorf("layers: %q, want one", dirs)
	}
	b.pull("b:1")
}

func TestHostile_IM40(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{imagetest.Files(map[string]string{"a": "a"}), imagetest.Files(map[string]string{"b": "b"})}})
	b.add("x:1", img, err)
	stop := make(chan struct{})
	var remover sync.WaitGroup
	remover.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := b.store.Remove(t.Context(), "x:1"); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			id := fmt.Sprintf("c%d", w)
			for range 40 {
				got, err := b.store.Pull(t.Context(), "x:1", nil)
				if errors.Is(err, image.ErrNotFound) {
					continue // removed between pull and answer
				}
				if err != nil {
					t.Error(err)
					return
				}
				root, err := b.store.MountRootfs(t.Context(), id, got.ID, image.RootfsOptions{})
				if errors.Is(err, image.ErrNotFound) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, f := range []string{"a", "b"} {
					if c, err := os.ReadFile(filepath.Join(root, f)); string(c) != f {
						t.Errorf("mounted image: %s = %q, %v", f, c, err)
					}
				}
				if err := b.store.UnmountRootfs(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	remover.Wait()
	b.store.Remove(t.Context(), "x:1")
	if u, err := b.store.Usage(); err != nil || u.Bytes != 0 {
		t.Errorf("usage after all is removed: %+v, %v", u, err)
	}
	b.clean()
}

func TestOverlayOfHostileLayersStaysInside(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{
		{{Name: "etc", Type: tar.TypeSymlink, Link: "/etc"}, {Name: "gone", Data: []byte("x")}, {Name: "d/", Type: tar.TypeDir}, {Name: "d/below", Data: []byte("x")}},
		{{Name: "etc/keelson-im2", Data: []byte("evil")}, {Name: ".wh.gone"}, {Name: "d/.wh..wh..opq"}, {Name: "d/new", Data: []byte("n")}},
	}})
	b.add("x:1", img, err)
	b.store.Pull(t.Context(), "x:1", nil) // may be refused: etc leads into itself
	if _, err := os.Lstat("/etc/keelson-im2"); err == nil {
		t.Fatal("a layer wrote to the host's /etc")
	}
	img, err = imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{
		{{Name: "gone", Data: []byte("x")}, {Name: "d/", Type: tar.TypeDir}, {Name: "d/below", Data: []byte("x")}, {Name: "d/sub/x"}},
		{{Name: ".wh.gone"}, {Name: "d/.wh..wh..opq"}, {Name: "d/new", Data: []byte("n")}},
	}})
	b.add("y:1", img, err)
	b.pull("y:1")
	root := b.mount("c1", "y:1")
	for _, p := range []string{"gone", "d/below", "d/sub"} {
		if _, err := os.Lstat(filepath.Join(root, p)); !os.IsNotExist(err) {
			t.Errorf("%s is still seen: %v", p, err)
		}
	}
	if c, err := os.ReadFile(filepath.Join(root, "d/new")); string(c) != "n" {
		t.Errorf("d/new = %q, %v", c, err)
	}
}
