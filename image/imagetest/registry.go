package imagetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Registry serves images to pull. Its zero value is not usable: NewRegistry.
// Safe for concurrent use, faults may be changed while it serves.
type Registry struct {
	mu        sync.Mutex
	manifests map[string]document // "<repository path>:<tag or digest>"
	blobs     map[string][]byte   // by digest
	faults    []Fault
	requests  []Request
}

type document struct {
	mediaType, digest string
	body              []byte
}

// Request is one request that was served.
type Request struct {
	Method, Path, Range, Authorization string
	Header                             http.Header
}

// Fault intercepts a request: it answers it and returns true, or returns false to
// let the next fault or the registry answer. It may wrap w to change what is
// sent: see Cut, Trickle.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler) bool

// NewRegistry is an empty registry.
func NewRegistry() *Registry {
	return &Registry{manifests: map[string]document{}, blobs: map[string][]byte{}}
}

// Add serves img under ref ("docker.io/library/nginx:1", "nginx", ...): its
// repository path without the host, by tag and by digest. It returns the
// manifest's digest.
func (g *Registry) Add(ref string, img v1.Image) (string, error) {
	raw, err := img.RawManifest()
	if err != nil {
		return "", err
	}
	mt, err := img.MediaType()
	if err != nil {
		return "", err
	}
	layers, err := img.Layers()
	if err != nil {
		return "", err
	}
	for _, l := range layers {
		if err := g.addLayer(l); err != nil {
			return "", err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return "", err
	}
	g.AddBlob(config)
	return g.AddDocument(ref, string(mt), raw)
}

func (g *Registry) addLayer(l v1.Layer) error {
	rc, err := l.Compressed()
	if err != nil {
		return err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		return err
	}
	g.AddBlob(b)
	return nil
}

// AddIndex serves a multi-platform index with its images. An image that is nil
// is listed as an attestation is, with an unknown platform.
func (g *Registry) AddIndex(ref string, platforms []v1.Platform, imgs []v1.Image) (string, error) {
	ix := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for i, img := range imgs {
		name, _, _ := strings.Cut(ref, "@")
		if _, err := g.Add(name, img); err != nil {
			return "", err
		}
		raw, err := img.RawManifest()
		if err != nil {
			return "", err
		}
		h, err := img.Digest()
		if err != nil {
			return "", err
		}
		mt, err := img.MediaType()
		if err != nil {
			return "", err
		}
		ix.Manifests = append(ix.Manifests, v1.Descriptor{MediaType: mt, Digest: h, Size: int64(len(raw)), Platform: &platforms[i]})
	}
	b, err := json.Marshal(ix)
	if err != nil {
		return "", err
	}
	return g.AddDocument(ref, string(types.OCIImageIndex), b)
}

// AddDocument serves any bytes as a manifest, and returns their digest.
func (g *Registry) AddDocument(ref, mediaType string, b []byte) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("%q: %w", ref, err)
	}
	h, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	d := document{mediaType, h.String(), b}
	g.mu.Lock()
	defer g.mu.Unlock()
	repo := reference.Path(named)
	g.manifests[repo+":"+h.String()] = d
	if t, ok := named.(reference.Tagged); ok {
		g.manifests[repo+":"+t.Tag()] = d
	}
	return h.String(), nil
}

// AddBlob serves b and returns its digest.
func (g *Registry) AddBlob(b []byte) string {
	h, _, _ := v1.SHA256(bytes.NewReader(b)) // reading memory does not fail
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blobs[h.String()] = b
	return h.String()
}

// SetBlob serves b under another digest: wrong bytes.
func (g *Registry) SetBlob(digest string, b []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blobs[digest] = b
}

// SetFaults replaces the faults; they are asked in order. None heals.
func (g *Registry) SetFaults(f ...Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = f
}

// Requests gives what was served so far, and forgets it.
func (g *Registry) Requests() []Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := g.requests
	g.requests = nil
	return out
}

// ServeHTTP answers the pull half of the distribution API.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.requests = append(g.requests, Request{r.Method, r.URL.Path, r.Header.Get("Range"), r.Header.Get("Authorization"), r.Header.Clone()})
	faults := g.faults
	g.mu.Unlock()
	for _, f := range faults {
		if f(w, r, http.HandlerFunc(g.serve)) {
			return
		}
	}
	g.serve(w, r)
}

func (g *Registry) serve(w http.ResponseWriter, r *http.Request) {
	p, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		Refuse(w, http.StatusNotFound, "UNSUPPORTED", "not the distribution API")
		return
	}
	if p == "" {
		w.WriteHeader(http.StatusOK)
		return
	}
	parts := strings.Split(p, "/")
	if len(parts) < 3 {
		Refuse(w, http.StatusNotFound, "NAME_INVALID", "no such name")
		return
	}
	repo, kind, target := strings.Join(parts[:len(parts)-2], "/"), parts[len(parts)-2], parts[len(parts)-1]
	g.mu.Lock()
	doc, haveDoc := g.manifests[repo+":"+target]
	blob, haveBlob := g.blobs[target]
	g.mu.Unlock()
	switch {
	case kind == "manifests" && haveDoc:
		w.Header().Set("Content-Type", doc.mediaType)
		w.Header().Set("Docker-Content-Digest", doc.digest)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(doc.body))
	case kind == "manifests":
		Refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	case kind == "blobs" && haveBlob:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	default:
		Refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
	}
}

// Refuse answers with the distribution API's error form.
func Refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// WriteHosts makes <dir>/<host>/hosts.toml for each host, so that it is served by
// the registry at url ("http://127.0.0.1:5000") and by nothing else.
func WriteHosts(dir, url string, hosts ...string) error {
	var errs []error
	for _, h := range hosts {
		d := filepath.Join(dir, h)
		err := os.MkdirAll(d, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(d, "hosts.toml"), fmt.Appendf(nil, "server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", url, url), 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
