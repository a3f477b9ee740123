package gc

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// Never is anything in a plan that is used; everything else that may go is.
func TestDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := func(label string) []digest.Digest {
			return rapid.SliceOfDistinct(rapid.Map(rapid.IntRange(0, 12), func(i int) digest.Digest { return digest.Digest(rune('a' + i)) }), rapid.ID[digest.Digest]).Draw(t, label)
		}
		layers, used := some("layers"), some("used")
		use := NewUse()
		for _, u := range used {
			use.Layers[u], use.Blobs[u] = true, true
		}
		var blobs []Blob
		for _, b := range some("blobs") {
			blobs = append(blobs, Blob{Digest: b, Fresh: rapid.Bool().Draw(t, "fresh")})
		}
		p := Decide(layers, blobs, use)
		for _, l := range layers {
			if slices.Contains(p.Layers, l) == slices.Contains(used, l) {
				t.Fatalf("layer %s: used %v, planned %v", l, used, p.Layers)
			}
		}
		for _, b := range blobs {
			if want := !b.Fresh && !slices.Contains(used, b.Digest); slices.Contains(p.Blobs, b.Digest) != want {
				t.Fatalf("blob %+v: used %v, planned %v", b, used, p.Blobs)
			}
		}
	})
}
