package ledger

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is one image: one config, whatever names and manifests lead to it.
type Image struct {
	// Names lead to the image: "docker.io/library/nginx:latest" and
	// "docker.io/library/nginx@sha256:...", each with what it pointed at.
	Names map[string]Target `json:"names,omitempty"`

	Manifest  digest.Digest   `json:"manifest"`  // the manifest that was unpacked
	MediaType string          `json:"mediaType"` // its media type
	Documents []digest.Digest `json:"documents"` // indexes, manifests and config: blobs to keep
	Blobs     []digest.Digest `json:"blobs"`     // compressed layers, bottom first; some may not be stored
	Chain     []digest.Digest `json:"chain"`     // layers by chain ID, bottom first
	Size      uint64          `json:"size"`      // bytes on disk were nothing shared: layers unpacked, and blobs
	Pinned    bool            `json:"pinned,omitempty"`
	PulledAt  time.Time       `json:"pulledAt"`
}

// Target is the document that a name pointed at when it was pulled: an index or a
// manifest.
type Target struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
}

// Tags and Digests list the names by kind, sorted.
func (i *Image) Tags() []string    { return i.names(false) }
func (i *Image) Digests() []string { return i.names(true) }

func (i *Image) names(digests bool) []string {
	var out []string
	for n := range i.Names {
		if strings.ContainsRune(n, '@') == digests {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// Layer is one unpacked layer.
type Layer struct {
	Dir    string        `json:"dir"`
	Diff   digest.Digest `json:"diff"`
	Blob   digest.Digest `json:"blob"` // what it was unpacked from
	Bytes  uint64        `json:"bytes"`
	Inodes uint64        `json:"inodes"`
}

// State is the whole record. The zero value with Version set is an empty store.
type State struct {
	Version int                      `json:"version"`
	Next    uint64                   `json:"next"` // number of the next layer directory
	Images  map[digest.Digest]*Image `json:"images"`
	Layers  map[digest.Digest]*Layer `json:"layers"`           // by chain ID
	Doomed  []digest.Digest          `json:"doomed,omitempty"` // blobs of removed images, until they are gone too
}

const version = 1

// New is an empty record.
func New() *State {
	return &State{Version: version, Next: 1, Images: map[digest.Digest]*Image{}, Layers: map[digest.Digest]*Layer{}}
}

// Put adds what was pulled to image id: names accumulate, and a name moves here
// from whatever image had it. An image of that id keeps its manifest.
func (s *State) Put(id digest.Digest, in Image) {
	for name := range in.Names {
		for other, img := range s.Images {
			if _, has := img.Names[name]; has && other != id {
				img.Names = maps.Clone(img.Names)
				delete(img.Names, name)
			}
		}
	}
	out := in
	if have := s.Images[id]; have != nil {
		out = *have
		out.Names = maps.Clone(have.Names)
		maps.Copy(out.Names, in.Names)
		out.Documents = union(have.Documents, in.Documents)
		out.Pinned = have.Pinned || in.Pinned
	}
	s.Images[id] = &out
}

// Target tells what a name points at.
func (s *State) Target(name string) (Target, bool) {
	for _, img := range s.Images {
		if t, ok := img.Names[name]; ok {
			return t, true
		}
	}
	return Target{}, false
}

// Find looks an image up by what a caller may say: an ID with or without
// "sha256:", or the normal form of a reference.
func (s *State) Find(ref string) (digest.Digest, bool) {
	if id := digest.Digest(ref); s.Images[id] != nil {
		return id, true
	}
	if id := digest.NewDigestFromEncoded(digest.SHA256, ref); s.Images[id] != nil {
		return id, true
	}
	for id, img := range s.Images {
		if _, has := img.Names[ref]; has {
			return id, true
		}
	}
	return "", false
}

// FindPrefix finds the only image whose hex ID begins with prefix (12 hex digits
// or more, so that a name is hardly mistaken for one).
func (s *State) FindPrefix(prefix string) (found digest.Digest, ok bool) {
	prefix = strings.TrimPrefix(prefix, "sha256:")
	if len(prefix) < 12 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return "", false
	}
	for id := range s.Images {
		if strings.HasPrefix(id.Encoded(), prefix) {
			if ok {
				return "", false
			}
			found, ok = id, true
		}
	}
	return found, ok
}

// Drop forgets the image, all its names included. Idempotent.
func (s *State) Drop(id digest.Digest) { delete(s.Images, id) }

// Intersect drops what cur no longer has: layers by chain and directory, and
// images that miss one or are gone from cur.
func (s *State) Intersect(cur *State) {
	maps.DeleteFunc(s.Layers, func(chain digest.Digest, l *Layer) bool {
		return cur.Layers[chain] == nil || cur.Layers[chain].Dir != l.Dir
	})
	maps.DeleteFunc(s.Images, func(id digest.Digest, _ *Image) bool { return cur.Images[id] == nil })
	s.Check()
}

// Check drops what cannot be used: images that miss a layer. It returns their ids.
func (s *State) Check() []digest.Digest {
	var bad []digest.Digest
	for id, img := range s.Images {
		for _, c := range img.Chain {
			if s.Layers[c] == nil {
				bad = append(bad, id)
				delete(s.Images, id)
				break
			}
		}
	}
	return bad
}

// Clone is a copy that shares nothing which changes.
func (s *State) Clone() *State {
	out := &State{Version: s.Version, Next: s.Next, Images: make(map[digest.Digest]*Image, len(s.Images)),
		Layers: maps.Clone(s.Layers), Doomed: slices.Clone(s.Doomed)} // a Layer never changes
	for id, img := range s.Images {
		c := *img // maps and slices are replaced, never written to
		out.Images[id] = &c
	}
	return out
}

// Sorted lists the image ids, for stable output.
func (s *State) Sorted() []digest.Digest { return slices.Sorted(maps.Keys(s.Images)) }

func union[T ~string](a, b []T) []T {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}
