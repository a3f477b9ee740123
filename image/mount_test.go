package image_test

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/image/imagetest"
)

func TestMountImage(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{{
		{Name: "dir/", Type: tar.TypeDir}, {Name: "dir/f", Data: []byte("inside")},
		{Name: "abs", Type: tar.TypeSymlink, Link: "/dir"}, {Name: "out", Type: tar.TypeSymlink, Link: "../../../../../../../etc"},
		{Name: "fifo", Type: tar.TypeFifo}}}})
	b.add("x:1", img, err)
	b.pull("x:1")
	views := 0
	view := func(sub string) (string, error) {
		views++
		id := "v" + string(rune('a'+views))
		p, err := b.store.MountImage(t.Context(), id, "x:1", image.ViewOptions{SubPath: sub})
		t.Cleanup(func() { b.store.UnmountImage(t.Context(), id) })
		return p, err
	}
	for sub, file := range map[string]string{"": "dir/f", "dir": "f", "/dir/": "f", "abs": "f", "dir/f": ""} {
		p, err := view(sub)
		if err != nil {
			t.Fatalf("MountImage(%q): %v", sub, err)
		}
		if got, err := os.ReadFile(filepath.Join(p, file)); string(got) != "inside" {
			t.Errorf("MountImage(%q): %q, %v", sub, got, err)
		}
		if err := os.WriteFile(filepath.Join(p, file), []byte("x"), 0o644); !errors.Is(err, syscall.EROFS) {
			t.Errorf("MountImage(%q): write: %v, want EROFS", sub, err)
		}
	}
	for _, sub := range []string{"nothing", "out", "../../etc", "fifo", "dir/f/x", "/etc/passwd"} {
		if p, err := view(sub); err == nil {
			t.Errorf("MountImage(%q) = %s", sub, p)
		}
	}
	p1, _ := b.store.MountImage(t.Context(), "again", "x:1", image.ViewOptions{SubPath: "dir"})
	p2, err := b.store.MountImage(t.Context(), "again", "x:1", image.ViewOptions{SubPath: "dir"})
	if p1 != p2 || err != nil {
		t.Errorf("second MountImage = %q, %v; want %q", p2, err, p1)
	}
	b.store.Remove(t.Context(), "x:1")
	if err := b.store.Close(); err != nil { // a restart with a volume mounted
		t.Fatal(err)
	}
	b.open()
	if got, err := os.ReadFile(filepath.Join(p1, "f")); string(got) != "inside" {
		t.Errorf("after restart: %q, %v", got, err)
	}
	for range 2 {
		if err := b.store.UnmountImage(t.Context(), "again"); err != nil {
			t.Error(err)
		}
	}
}

func TestMountRootfsOptions(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Busybox()
	b.add("x:1", img, err)
	b.pull("x:1")
	ro, err := b.store.MountRootfs(t.Context(), "ro", "x:1", image.RootfsOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ro, "tmp/x"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to a read-only rootfs: %v", err)
	}
	if err := b.store.UnmountRootfs(t.Context(), "ro"); err != nil {
		t.Error(err)
	}
	maps := []image.IDMap{{Container: 0, Host: 100000, Size: 65536}}
	p, err := b.store.MountRootfs(t.Context(), "userns", "x:1", image.RootfsOptions{UIDs: maps, GIDs: maps})
	if err != nil {
		t.Fatal(err)
	}
	defer b.store.UnmountRootfs(t.Context(), "userns")
	for _, f := range []string{"bin/busybox", "tmp", "."} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(p, f), &st); err != nil || st.Uid != 100000 || st.Gid != 100000 {
			t.Errorf("%s: owner %d:%d, %v; want 100000:100000", f, st.Uid, st.Gid, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "../x", strings.Repeat("x", 200), "a\x00b"} {
		if p, err := b.store.MountRootfs(t.Context(), id, "x:1", image.RootfsOptions{}); err == nil {
			t.Errorf("MountRootfs(%q) = %q", id, p)
		}
	}
}

func TestManyLayers(t *testing.T) {
	b := newBench(t)
	var layers []imagetest.Layer
	for i := range 200 {
		layers = append(layers, imagetest.Layer{{Name: "f", Data: []byte{byte(i)}}, {Name: "f" + string(rune('0'+i)), Data: []byte("x")}})
	}
	img, err := imagetest.Build(imagetest.Spec{Layers: layers})
	b.add("x:1", img, err)
	b.pull("x:1")
	root := b.mount("c1", "x:1")
	if got, err := os.ReadFile(filepath.Join(root, "f")); len(got) != 1 || got[0] != 199 {
		t.Errorf("f = %v, %v", got, err)
	}
	if ents, _ := os.ReadDir(root); len(ents) != 201 {
		t.Errorf("%d entries, want 201", len(ents))
	}
}

func TestLeftoverMountsAreRemovedOnOpen(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	b.add("x:1", img, err)
	b.pull("x:1")
	root := b.mount("c1", "x:1")
	b.mount("c2", "x:1")
	b.store.Close()
	os.Remove(filepath.Join(b.root, "containers/c1/record"))           // a mount without record
	unix.Unmount(filepath.Join(b.root, "containers/c2/rootfs"), 0)     // a record without mount, as after a reboot
	os.MkdirAll(filepath.Join(b.root, "containers/c3/upper/x"), 0o755) // killed before the mount
	os.MkdirAll(filepath.Join(b.root, "layers/draft-9/etc"), 0o755)    // killed while unpacking
	os.MkdirAll(filepath.Join(b.root, "layers/zz/etc"), 0o755)         // killed before the ledger
	os.WriteFile(filepath.Join(b.root, "ingest/stream-1"), nil, 0o600) // killed while importing
	b.open()
	b.clean()
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("%s: %v", root, err)
	}
	if dirs, _ := filepath.Glob(filepath.Join(b.root, "layers/*")); len(dirs) != 1 {
		t.Errorf("layers: %q, want one", dirs)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), b.root) {
		t.Error("mounts are left")
	}
}

// What critest demands of names, see the list of its images.
func TestNames(t *testing.T) {
	b := newBench(t)
	pause, err := imagetest.Program("pause", 0o755, []byte("pause"))
	b.add("registry.k8s.io/pause:3.9", pause, err)
	a, c := b.pull("registry.k8s.io/pause:3.9"), b.pull("k8s.gcr.io/pause:3.9")
	if a.ID != c.ID || len(c.RepoTags) != 2 || len(c.RepoDigests) != 2 {
		t.Errorf("two registries, one image: %+v", c)
	}
	if err := b.store.Remove(t.Context(), "k8s.gcr.io/pause:3.9"); err != nil {
		t.Error(err)
	}
	if _, err := b.store.Get("registry.k8s.io/pause:3.9"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("removing one name removes the image: %v", err)
	}
	img, err := tiny("latest")
	d := b.add("gcr.io/k8s-staging-cri-tools/test-image-latest", img, err)
	if got := b.pull("gcr.io/k8s-staging-cri-tools/test-image-latest"); len(got.RepoTags) != 1 || got.RepoTags[0] != "gcr.io/k8s-staging-cri-tools/test-image-latest:latest" {
		t.Errorf("no tag: %q", got.RepoTags)
	}
	b.store.Remove(t.Context(), "gcr.io/k8s-staging-cri-tools/test-image-latest")
	for _, ref := range []string{"gcr.io/k8s-staging-cri-tools/test-image-latest@" + d, "gcr.io/k8s-staging-cri-tools/test-image-latest:sometag@" + d} {
		got := b.pull(ref)
		if len(got.RepoTags) != 0 || len(got.RepoDigests) != 1 || got.RepoDigests[0] != "gcr.io/k8s-staging-cri-tools/test-image-latest@"+d {
			t.Errorf("by digest: tags %q, digests %q", got.RepoTags, got.RepoDigests)
		}
		if again, err := b.store.Get(ref); err != nil || again.ID != got.ID {
			t.Errorf("Get(%q): %v, %v", ref, again.ID, err)
		}
	}
	// A tag that moves leaves the old image without it.
	old := b.pull("gcr.io/k8s-staging-cri-tools/test-image-latest")
	img, err = tiny("newer")
	b.add("gcr.io/k8s-staging-cri-tools/test-image-latest", img, err)
	now := b.pull("gcr.io/k8s-staging-cri-tools/test-image-latest")
	if was, err := b.store.Get(old.ID); err != nil || len(was.RepoTags) != 0 || now.ID == old.ID || len(now.RepoTags) != 1 {
		t.Errorf("moved tag: old %+v (%v), new %+v", was, err, now)
	}
}
