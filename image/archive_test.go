package image_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"keelson.dev/keelson/image/imagetest"
)

func TestExportImport(t *testing.T) {
	a := newBench(t)
	for _, c := range []imagetest.Compression{imagetest.Gzip, imagetest.Zstd, imagetest.None} {
		img, err := imagetest.Build(imagetest.Spec{Compression: c, Layers: []imagetest.Layer{
			imagetest.Files(map[string]string{"etc/name": string(c)}), imagetest.Files(map[string]string{"bin/x": "x"})}})
		a.add("registry.k8s.io/test:"+string(c), img, err)
		a.pull("registry.k8s.io/test:" + string(c))
	}
	var out, again bytes.Buffer
	refs := []string{"registry.k8s.io/test:gzip", "registry.k8s.io/test:zstd", "registry.k8s.io/test:none"}
	if err := a.store.Export(t.Context(), &out, refs...); err != nil {
		t.Fatal(err)
	}
	if err := a.store.Export(t.Context(), &again, refs...); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("second export differs, or: %v", err)
	}
	b := newBench(t)
	for range 2 { // importing what is there is fine
		imgs, err := b.store.Import(t.Context(), bytes.NewReader(out.Bytes()))
		if err != nil || len(imgs) != 3 {
			t.Fatalf("Import: %d images, %v", len(imgs), err)
		}
		for _, ref := range refs {
			want, _ := a.store.Get(ref)
			got, err := b.store.Get(ref)
			if err != nil || got.ID != want.ID || !slices.Equal(got.RepoDigests, want.RepoDigests) {
				t.Errorf("%s: got %+v, %v; want %+v", ref, got, err, want)
			}
			if err := b.store.Verify(t.Context(), ref); err != nil {
				t.Error(err)
			}
		}
	}
	root := b.mount("c1", refs[1])
	if got, err := os.ReadFile(filepath.Join(root, "etc/name")); string(got) != "zstd" {
		t.Errorf("etc/name = %q, %v", got, err)
	}
}

func TestImportDockerArchive(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("example.com/bb:1")
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if err := tarball.Write(tag, img, &plain); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(plain.Bytes())
	z.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bb.tar.gz"), packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 0} { // the second time it is known
		imgs, err := b.store.ImportFolder(t.Context(), dir)
		if err != nil || len(imgs) != want {
			t.Fatalf("ImportFolder, time %d: %d images, %v; want %d", i, len(imgs), err, want)
		}
	}
	got, err := b.store.Get("example.com/bb:1")
	if err != nil || len(got.RepoDigests) != 0 {
		t.Errorf("got %+v, %v; a manifest made here is no repository's", got, err)
	}
	want, _ := img.ConfigName()
	if got.ID != want.String() {
		t.Errorf("ID = %s, want %s", got.ID, want)
	}
}
