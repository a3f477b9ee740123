package gc

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// Use is everything that must stay: the union over images, mounts and leases.
type Use struct {
	Layers map[digest.Digest]bool // chain IDs
	Blobs  map[digest.Digest]bool
}

// NewUse is an empty set.
func NewUse() Use {
	return Use{Layers: map[digest.Digest]bool{}, Blobs: map[digest.Digest]bool{}}
}

// Blob is a stored or partly stored blob.
type Blob struct {
	Digest digest.Digest
	Fresh  bool // arrived lately: an interrupted pull may want it again
}

// Plan is what to delete.
type Plan struct {
	Layers, Blobs []digest.Digest
}

// Decide compares what there is with what is used.
func Decide(layers []digest.Digest, blobs []Blob, use Use) Plan {
	var p Plan
	for _, l := range layers {
		if !use.Layers[l] {
			p.Layers = append(p.Layers, l)
		}
	}
	for _, b := range blobs {
		if !b.Fresh && !use.Blobs[b.Digest] {
			p.Blobs = append(p.Blobs, b.Digest)
		}
	}
	slices.Sort(p.Layers)
	slices.Sort(p.Blobs)
	return p
}
