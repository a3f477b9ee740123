package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/munnerz/goautoneg"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
)

//go:embed spec
var files embed.FS

const (
	v3Proto = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	v2Proto = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	// Clients write an @ where the media type has a dot.
	v3ProtoAt = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
	v2ProtoAt = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
)

// Index is the document at /openapi/v3: where each group version's document is.
type Index struct {
	Paths map[string]Entry `json:"paths"`
}

// Entry of an Index. The URL has the document's hash in it, so that clients keep documents for good.
type Entry struct {
	URL string `json:"serverRelativeURL"`
}

// Documents are the embedded documents and those of others.
type Documents struct {
	index map[string]Entry
	mu    sync.RWMutex
	// extra are documents of group versions that are not built in, as JSON.
	extra map[string][]byte
}

// New returns the embedded documents.
func New() (*Documents, error) {
	d := &Documents{index: map[string]Entry{}, extra: map[string][]byte{}}
	b, err := files.ReadFile("spec/index.json")
	if err != nil {
		return nil, fmt.Errorf("OpenAPI index: %w", err)
	}
	var in Index
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("OpenAPI index: %w", err)
	}
	d.index = in.Paths
	return d, nil
}

// Set adds or replaces the document of a path ("apis/example.com/v1"); nil removes it.
func (d *Documents) Set(path string, document []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if document == nil {
		delete(d.extra, path)
	} else {
		d.extra[path] = document
	}
}

// entry makes the index entry of a document.
func entry(path string, document []byte) Entry {
	return Entry{URL: "/openapi/v3/" + path + "?hash=" + fmt.Sprintf("%X", sha512.Sum512(document))}
}

// Mux is where Install puts the handlers.
type Mux interface {
	Handle(path string, h http.Handler)
	HandlePrefix(path string, h http.Handler)
}

// Install serves the documents at /openapi.
func (d *Documents) Install(m Mux) {
	m.Handle("/openapi/v2", http.HandlerFunc(d.serveV2))
	m.Handle("/openapi/v3", http.HandlerFunc(d.serveIndex))
	m.HandlePrefix("/openapi/v3/", http.HandlerFunc(d.serveV3))
}

func (d *Documents) serveIndex(w http.ResponseWriter, r *http.Request) {
	d.mu.RLock()
	all := maps.Clone(d.index)
	for p, doc := range d.extra {
		all[p] = entry(p, doc)
	}
	d.mu.RUnlock()
	b, err := json.Marshal(Index{Paths: all})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, r, document{json: b}, "application/json", nil)
}

func (d *Documents) serveV3(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/openapi/v3/")
	d.mu.RLock()
	doc := document{json: d.extra[path]}
	e, known := d.index[path]
	d.mu.RUnlock()
	if doc.json != nil {
		e, known = entry(path, doc.json), true
	} else if known {
		doc.gzip, _ = files.ReadFile("spec/" + fileName(path))
	}
	if !known {
		http.NotFound(w, r)
		return
	}
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if !strings.HasSuffix(e.URL, "hash="+hash) {
			http.Redirect(w, r, e.URL, http.StatusMovedPermanently)
			return
		}
		// The URL names the content: it never changes.
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).Format(time.RFC1123))
	}
	_, hash, _ := strings.Cut(e.URL, "hash=")
	w.Header().Set("Etag", `"`+hash+`"`)
	negotiate(w, r, doc, []string{"application/json", v3Proto, v3ProtoAt}, handler3.ToV3ProtoBinary)
}

func (d *Documents) serveV2(w http.ResponseWriter, r *http.Request) {
	b, err := files.ReadFile("spec/v2.json.gz")
	if err != nil {
		http.NotFound(w, r)
		return
	}
	negotiate(w, r, document{gzip: b}, []string{"application/json", v2Proto, v2ProtoAt}, handler.ToProtoBinary)
}

// fileName of a path's document under spec.
func fileName(path string) string { return strings.ReplaceAll(path, "/", "_") + ".json.gz" }

// document is JSON, plain or compressed.
type document struct{ json, gzip []byte }

func (d document) plain() ([]byte, error) {
	if d.json != nil {
		return d.json, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(d.gzip))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func negotiate(w http.ResponseWriter, r *http.Request, doc document, offers []string, toProto func([]byte) ([]byte, error)) {
	accept := r.Header.Get("Accept")
	if accept == "" {
		accept = "*/*"
	}
	switch chosen := goautoneg.Negotiate(accept, offers); chosen {
	case "":
		http.Error(w, "cannot serve "+accept, http.StatusNotAcceptable)
	case "application/json":
		write(w, r, doc, "application/json", nil)
	default:
		write(w, r, doc, strings.Replace(chosen, "@", ".", 1), toProto)
	}
}

// write sends a document, compressed as it is if the client takes that.
func write(w http.ResponseWriter, r *http.Request, doc document, mediaType string, convert func([]byte) ([]byte, error)) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	if convert == nil && doc.gzip != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(doc.gzip)
		return
	}
	b, err := doc.plain()
	if err == nil && convert != nil {
		b, err = convert(b)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b)
}

// Has tells whether a path has a built-in document.
func (d *Documents) Has(path string) bool {
	_, ok := d.index[path]
	return ok
}
