package ledger

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func d(s string) digest.Digest { return digest.FromString(s) }

func names(list ...string) map[string]Target {
	out := map[string]Target{}
	for _, n := range list {
		out[n] = Target{Digest: d(n)}
	}
	return out
}

func TestPutMovesNames(t *testing.T) {
	s := New()
	s.Put(d("one"), Image{Names: names("r/x:1", "r/x@sha256:a"), Documents: []digest.Digest{d("m1")}, Manifest: d("m1")})
	before := s.Clone()
	s.Put(d("two"), Image{Names: names("r/x:1", "r/x@sha256:b")})
	s.Put(d("one"), Image{Names: names("q/x:1"), Documents: []digest.Digest{d("m2")}, Manifest: d("m2")})
	one, two := s.Images[d("one")], s.Images[d("two")]
	if got := one.Tags(); !reflect.DeepEqual(got, []string{"q/x:1"}) {
		t.Errorf("one's tags: %q", got)
	}
	if got := one.Digests(); !reflect.DeepEqual(got, []string{"r/x@sha256:a"}) {
		t.Errorf("one's digests: %q", got)
	}
	if got := two.Tags(); !reflect.DeepEqual(got, []string{"r/x:1"}) {
		t.Errorf("two's tags: %q", got)
	}
	if one.Manifest != d("m1") || len(one.Documents) != 2 {
		t.Errorf("one: %+v", one)
	}
	if got := before.Images[d("one")].Tags(); !reflect.DeepEqual(got, []string{"r/x:1"}) {
		t.Errorf("the clone changed: %q", got)
	}
	if target, ok := s.Target("r/x:1"); !ok || target.Digest != d("r/x:1") {
		t.Errorf("Target: %v, %v", target, ok)
	}
}

func TestFind(t *testing.T) {
	s := New()
	s.Put(d("one"), Image{Names: names("r/x:1")})
	id := d("one")
	for _, ref := range []string{string(id), id.Encoded(), "r/x:1"} {
		if got, ok := s.Find(ref); !ok || got != id {
			t.Errorf("Find(%q) = %s, %v", ref, got, ok)
		}
	}
	for prefix, want := range map[string]bool{id.Encoded()[:12]: true, "sha256:" + id.Encoded()[:20]: true, id.Encoded()[:11]: false, "": false, "nginx": false, strings.Repeat("z", 12): false} {
		if got, ok := s.FindPrefix(prefix); ok != want || ok && got != id {
			t.Errorf("FindPrefix(%q) = %s, %v", prefix, got, ok)
		}
	}
	if _, ok := s.Find("r/x:2"); ok {
		t.Error("found what is not there")
	}
}

func TestIntersect(t *testing.T) {
	mk := func() *State {
		s := New()
		for _, l := range []string{"a", "b", "c"} {
			s.Layers[d(l)] = &Layer{Dir: l}
		}
		s.Put(d("one"), Image{Chain: []digest.Digest{d("a"), d("b")}})
		s.Put(d("two"), Image{Chain: []digest.Digest{d("a"), d("c")}})
		s.Put(d("three"), Image{Chain: []digest.Digest{d("a")}})
		return s
	}
	s, cur := mk(), mk()
	cur.Drop(d("three"))
	cur.Layers[d("c")] = &Layer{Dir: "again"} // removed and unpacked anew: not the directory that was synced
	s.Intersect(cur)
	if got := s.Sorted(); len(got) != 1 || got[0] != d("one") {
		t.Errorf("images: %v", got)
	}
	if len(s.Layers) != 2 {
		t.Errorf("layers: %v", s.Layers)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	f, err := NewFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, synced, err := f.Load()
	if err != nil || !synced || len(s.Images) != 0 {
		t.Fatalf("empty: %+v, %v, %v", s, synced, err)
	}
	s.Put(d("durable"), Image{})
	if err := f.SaveDurable(s); err != nil {
		t.Fatal(err)
	}
	s.Put(d("late"), Image{})
	if err := f.Save(s); err != nil {
		t.Fatal(err)
	}
	if s, synced, err = f.Load(); err != nil || synced || len(s.Images) != 2 {
		t.Errorf("same boot: %d images, synced %v, %v", len(s.Images), synced, err)
	}
	f.boot = "another"
	if s, synced, err = f.Load(); err != nil || !synced || len(s.Images) != 1 {
		t.Errorf("next boot: %d images, synced %v, %v", len(s.Images), synced, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "images-*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	for name, text := range map[string]string{"garbage": "{", "version": `{"version":99}`} {
		os.WriteFile(filepath.Join(dir, "images.json"), []byte(text), 0o600)
		s, _, err := f.Load()
		if err == nil || !strings.Contains(err.Error(), "images.json") || s == nil || len(s.Images) != 0 {
			t.Errorf("%s: %v, %v; want an empty record and the file's name", name, s, err)
		}
		if kept, err := os.ReadFile(filepath.Join(dir, "images.json.bad")); err != nil || string(kept) != text {
			t.Errorf("%s: set aside: %q, %v", name, kept, err)
		}
	}
	// Values that would lead elsewhere are not taken over.
	os.WriteFile(filepath.Join(dir, "images.json"), []byte(`{"version":1,"images":{"x":null},"layers":{"a":null,"b":{"dir":"../../etc"},"c":{"dir":""},"d":{"dir":"7"}}}`), 0o600)
	if s, _, err = f.Load(); err != nil || len(s.Images) != 0 || len(s.Layers) != 1 {
		t.Errorf("hostile ledger: %+v, %v", s, err)
	}
}
