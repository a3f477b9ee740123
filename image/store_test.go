package image_test

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/image/imagetest"
	"keelson.dev/keelson/image/registry"
)

// bench is a store with a registry that stands in for every public one.
type bench struct {
	*testing.T
	reg   *imagetest.Registry
	srv   *httptest.Server
	root  string
	certs string
	store *image.Store
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: unpacks layers and mounts overlayfs")
	}
}

func newBench(t *testing.T) *bench {
	needRoot(t)
	b := &bench{T: t, reg: imagetest.NewRegistry(), root: filepath.Join(t.TempDir(), "images"), certs: t.TempDir()}
	b.srv = httptest.NewServer(b.reg)
	t.Cleanup(b.srv.Close)
	if err := imagetest.WriteHosts(b.certs, b.srv.URL, "docker.io", "registry.k8s.io", "gcr.io", "k8s.gcr.io"); err != nil {
		t.Fatal(err)
	}
	b.open()
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) config() image.Config {
	return image.Config{Root: b.root, CertsDirs: []string{b.certs}, Policy: filepath.Join(b.certs, "policy.json"), Log: slog.New(slog.NewTextHandler(testWriter{b.T}, nil)),
		Registry: registry.Config{Backoff: time.Millisecond, Retries: 3, ProgressTimeout: 5 * time.Second}}
}

func (b *bench) open() {
	b.Helper()
	var err error
	if b.store, err = image.Open(b.config()); err != nil {
		b.Fatal(err)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

func (b *bench) add(ref string, img v1.Image, err error) string {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	d, err := b.reg.Add(ref, img)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func (b *bench) pull(ref string) image.Image {
	b.Helper()
	img, err := b.store.Pull(b.Context(), ref, nil)
	if err != nil {
		b.Fatalf("Pull(%q): %v", ref, err)
	}
	return img
}

// mount mounts an image for a container until the test's end.
func (b *bench) mount(container, ref string) string {
	b.Helper()
	p, err := b.store.MountRootfs(b.Context(), container, ref, image.RootfsOptions{})
	if err != nil {
		b.Fatalf("MountRootfs(%q, %q): %v", container, ref, err)
	}
	b.Cleanup(func() {
		if err := b.store.UnmountRootfs(b.Context(), container); err != nil && !errors.Is(err, image.ErrClosed) {
			b.Log(err)
		}
	})
	return p
}

func TestPullMountRemove(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Busybox()
	digest := b.add("nginx:1", img, err)
	got := b.pull("nginx:1")
	if want := "docker.io/library/nginx:1"; len(got.RepoTags) != 1 || got.RepoTags[0] != want {
		t.Errorf("RepoTags = %q, want [%s]", got.RepoTags, want)
	}
	if want := "docker.io/library/nginx@" + digest; len(got.RepoDigests) != 1 || got.RepoDigests[0] != want {
		t.Errorf("RepoDigests = %q, want [%s]", got.RepoDigests, want)
	}
	if got.Size == 0 || len(got.Config.Cmd) != 1 {
		t.Errorf("Size = %d, Config = %+v", got.Size, got.Config)
	}
	for _, ref := range []string{got.ID, got.ID[7:], got.ID[7:25], "nginx:1", "docker.io/library/nginx@" + digest} {
		if one, err := b.store.Get(ref); err != nil || one.ID != got.ID {
			t.Errorf("Get(%q) = %v, %v", ref, one.ID, err)
		}
	}
	root := b.mount("c1", got.ID)
	if st, err := os.Stat(filepath.Join(root, "tmp")); err != nil || st.Mode()&(os.ModeSticky|0o777) != os.ModeSticky|0o777 {
		t.Errorf("stat tmp: %v, %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(root, "tmp/x"), []byte("hello"), 0o644); err != nil {
		t.Error(err)
	}
	if u, err := b.store.RootfsUsage("c1"); err != nil || u.Bytes == 0 || u.Inodes < 3 {
		t.Errorf("RootfsUsage = %+v, %v", u, err)
	}
	if again := b.mount("c1", got.ID); again != root {
		t.Errorf("second MountRootfs = %q, want %q", again, root)
	}
	if err := b.store.Remove(t.Context(), "nginx:1"); err != nil {
		t.Error(err)
	}
	if _, err := b.store.Get(got.ID); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("Get after Remove: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "bin/sh")); err != nil {
		t.Errorf("mounted image after Remove: %v", err)
	}
	for range 2 {
		if err := b.store.UnmountRootfs(t.Context(), "c1"); err != nil {
			t.Error(err)
		}
	}
	if u, err := b.store.Usage(); err != nil || u.Bytes != 0 || u.Inodes != 0 {
		t.Errorf("Usage after all is gone = %+v, %v", u, err)
	}
	if len(b.store.List()) != 0 {
		t.Errorf("List = %v", b.store.List())
	}
}

func TestReopenKeepsImagesAndMounts(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Busybox()
	b.add("registry.k8s.io/e2e-test-images/busybox:1.29-2", img, err)
	got := b.pull("registry.k8s.io/e2e-test-images/busybox:1.29-2")
	root := b.mount("c1", got.ID)
	if _, err := image.Open(b.config()); !errors.Is(err, image.ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	if again, err := b.store.Get(got.RepoTags[0]); err != nil || again.ID != got.ID || again.Size != got.Size {
		t.Errorf("after reopen: %+v, %v; want %+v", again, err, got)
	}
	if p := b.mount("c1", got.ID); p != root {
		t.Errorf("after reopen: rootfs %q, want %q", p, root)
	}
}

func TestPullErrorsCarryTheRegistrysWords(t *testing.T) {
	b := newBench(t)
	_, err := b.store.Pull(t.Context(), "nginx:nope", nil)
	want := `failed to resolve reference "docker.io/library/nginx:nope": docker.io/library/nginx:nope: not found`
	if !errors.Is(err, image.ErrNotFound) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
