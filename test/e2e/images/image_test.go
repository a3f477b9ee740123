package images

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"keelson.dev/keelson/image/imagetest"
	"keelson.dev/keelson/test/lab"
)

const (
	first  = "registry.test/first:1"
	second = "registry.test/second:1"
)

// node is the runtime alone, with a registry that serves two small images.
type node struct {
	*testing.T
	*lab.Cluster
	images map[string]v1.Image
}

func start(t *testing.T) node {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts a container runtime")
	}
	registry := imagetest.NewRegistry()
	n := node{t, nil, map[string]v1.Image{}}
	for ref, text := range map[string]string{first: "one", second: "two"} {
		img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{imagetest.Files(map[string]string{"shared": "both"}), imagetest.Files(map[string]string{"file": text})}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Add(ref, img); err != nil {
			t.Fatal(err)
		}
		n.images[ref] = img
	}
	server := httptest.NewServer(registry)
	t.Cleanup(server.Close)
	var err error
	if n.Cluster, err = lab.New(lab.Options{Runtime: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
		defer cancel()
		if err := n.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := imagetest.WriteHosts(n.CertsDir(), server.URL, "registry.test"); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitRuntime(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// image runs `keelson image`, which must succeed.
func (n node) image(args ...string) string {
	n.Helper()
	out, err := n.Cluster.Run(n.Context(), append([]string{"image"}, args...)...)
	if err != nil {
		n.Fatalf("keelson image %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused runs `keelson image`, which must fail, and gives what it says.
func (n node) refused(args ...string) string {
	n.Helper()
	out, err := n.Cluster.Run(n.Context(), append([]string{"image"}, args...)...)
	if err == nil {
		n.Fatalf("keelson image %s succeeded: %s", strings.Join(args, " "), out)
	}
	return out
}

// listed gives the ids of the registry's images by their names, as `keelson image ls` shows them; keelson's own first pod is
// beside them.
func (n node) listed() map[string]string {
	n.Helper()
	out := map[string]string{}
	for line := range strings.Lines(n.image("ls")) {
		if f := strings.Fields(line); len(f) >= 2 && strings.HasPrefix(f[0], "registry.test/") {
			out[f[0]] = f[1]
		}
	}
	return out
}

func TestPullListRemove(t *testing.T) {
	n := start(t)
	id := strings.TrimSpace(n.image("pull", first))
	if got := n.listed()[first]; len(n.listed()) != 1 || got == "" || !strings.HasPrefix(id, got) {
		t.Errorf("after a pull of %s that gave %s, the list is %v", first, id, n.listed())
	}
	if out := n.refused("pull", "registry.test/none:1"); !strings.Contains(out, "registry.test/none:1") || !strings.Contains(out, "not found") {
		t.Errorf("pull of what is not there: %q", out)
	}
	if out := n.refused("pull", "registry.test/UPPER"); !strings.Contains(out, "UPPER") {
		t.Errorf("pull of no reference: %q", out)
	}
	n.image("pull", second)
	n.image("rm", first)
	if got := n.listed(); len(got) != 1 || got[second] == "" {
		t.Errorf("after the removal: %v", got)
	}
	if out := n.refused("rm", first); !strings.Contains(out, first) {
		t.Errorf("removal of what is gone: %q", out)
	}
}

// damage flips a byte of a stored blob.
func (n node) damage(digest v1.Hash) {
	n.Helper()
	found := 0
	err := filepath.WalkDir(n.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() != digest.Hex {
			return err
		}
		found++
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 20); err != nil {
			return err
		}
		b[0] ^= 1
		_, err = f.WriteAt(b, 20)
		return err
	})
	if err != nil || found != 1 {
		n.Fatalf("damage %s: %d files, %v", digest, found, err)
	}
}

// TestVerify: every damaged blob is named with its image, the sound ones are said to be so, and what the message advises
// mends it.
func TestVerify(t *testing.T) {
	n := start(t)
	n.image("pull", first)
	n.image("pull", second)
	if out := n.image("verify"); !strings.Contains(out, first+" ok") || !strings.Contains(out, second+" ok") {
		t.Errorf("verify of all: %q", out)
	}
	layers, err := n.images[first].Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	n.damage(digest)
	out := n.refused("verify", first, second)
	for _, want := range []string{first, digest.String(), "pull it again", second + " ok"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify over a damaged blob says %q, want %q in it", out, want)
		}
	}
	n.image("pull", first)
	if out := n.image("verify", first); out != first+" ok\n" {
		t.Errorf("verify after the pull: %q", out)
	}
	// The bytes are those of the registry again.
	file := filepath.Join(t.TempDir(), "mended.tar")
	n.image("export", first, "-o", file)
	n.same(n.layoutOf(file)[first], n.images[first])
	if out := n.refused("verify", "registry.test/none:1"); !strings.Contains(out, "registry.test/none:1") {
		t.Errorf("verify of what is not there: %q", out)
	}
}

// layoutOf reads an archive as an OCI layout, with a reader that is not ours.
func (n node) layoutOf(file string) map[string]v1.Image {
	n.Helper()
	dir := n.TempDir()
	f, err := os.Open(file)
	if err != nil {
		n.Fatal(err)
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			n.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(tr)
		at := filepath.Join(dir, filepath.Clean("/"+h.Name))
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, data, 0o644)); err != nil {
			n.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		n.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		n.Fatal(err)
	}
	out := map[string]v1.Image{}
	for _, d := range m.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			n.Fatal(err)
		}
		out[d.Annotations["io.containerd.image.name"]] = img
	}
	return out
}

// same holds two images against each other by their configs, which name every layer's content.
func (n node) same(got, want v1.Image) {
	n.Helper()
	if got == nil {
		n.Fatal("the image is not there")
	}
	a, err := got.ConfigName()
	b, werr := want.ConfigName()
	if err != nil || werr != nil || a != b {
		n.Errorf("config %v, want %v; %v, %v", a, b, err, werr)
	}
	layers, err := got.Layers()
	if err != nil {
		n.Fatal(err)
	}
	for _, l := range layers { // read to the end, which checks its digest
		r, err := l.Uncompressed()
		if err != nil {
			n.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			n.Error(err)
		}
		r.Close()
	}
}

// TestArchives goes round: pulled images are exported as one archive that foreign readers take for an OCI layout and for a
// docker archive; what foreign writers make of either kind is imported.
func TestArchives(t *testing.T) {
	n := start(t)
	n.image("pull", first)
	n.image("pull", second)
	dir := t.TempDir()
	both := filepath.Join(dir, "both.tar")
	n.image("export", first, second, "-o", both)
	for ref, img := range n.images {
		n.same(n.layoutOf(both)[ref], img)
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		docker, err := tarball.ImageFromPath(both, &tag)
		if err != nil {
			t.Fatalf("read the export as a docker archive: %v", err)
		}
		n.same(docker, img)
	}
	if out := n.refused("export", "registry.test/none:1", "-o", filepath.Join(dir, "none.tar")); !strings.Contains(out, "registry.test/none:1") {
		t.Errorf("export of what is not there: %q", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "none.tar")); err == nil {
		t.Error("a refused export left a file")
	}
	for kind, write := range map[string]func(file string) error{
		"what was exported": func(file string) error { return os.Link(both, file) },
		"a docker archive": func(file string) error {
			tags := map[name.Tag]v1.Image{}
			for ref, img := range n.images {
				tag, err := name.NewTag(ref)
				if err != nil {
					return err
				}
				tags[tag] = img
			}
			return tarball.MultiWriteToFile(file, tags)
		},
		"an OCI layout": func(file string) error { return writeLayout(t.TempDir(), file, n.images) },
	} {
		t.Run(kind, func(t *testing.T) {
			n := n
			n.T = t
			n.image("rm", first, second)
			if got := n.listed(); len(got) != 0 {
				t.Fatalf("not removed: %v", got)
			}
			file := filepath.Join(t.TempDir(), "archive.tar")
			if err := write(file); err != nil {
				t.Fatal(err)
			}
			out := n.image("import", file)
			for ref := range n.images {
				if !strings.Contains(out, ref) || n.listed()[ref] == "" {
					t.Errorf("the import says %q, the list is %v, want %s", out, n.listed(), ref)
				}
			}
			n.image("verify")
			again := filepath.Join(t.TempDir(), "again.tar")
			n.image("export", first, "-o", again)
			n.same(n.layoutOf(again)[first], n.images[first])
		})
	}
	broken := filepath.Join(dir, "broken.tar")
	whole, err := os.ReadFile(both)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if out := n.refused("import", broken); !strings.Contains(out, broken) {
		t.Errorf("import of half an archive: %q", out)
	}
}

// writeLayout makes an OCI layout of images with a writer that is not ours, and packs it.
func writeLayout(dir, file string, images map[string]v1.Image) error {
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for ref, img := range images {
		if err := index.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref})); err != nil {
			return err
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(f)
	return errors.Join(tw.AddFS(os.DirFS(dir)), tw.Close(), f.Close())
}
