package openapi

import (
	"compress/gzip"
	"crypto/sha512"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/munnerz/goautoneg"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

//go:embed all:spec
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

// Documents are the embedded documents and those of a delegate.
type Documents struct {
	index map[string]Entry
	// delegate serves further documents under the same paths; nil: there are none.
	delegate http.Handler
	// Sources are other servers' documents; nil: there are none. Set it before Install.
	Sources func() []Source
	said    answers
}

// New returns the embedded documents.
func New() (*Documents, error) {
	d := &Documents{}
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

// Delegate adds the documents that h serves. Call it before Install.
func (d *Documents) Delegate(h http.Handler) { d.delegate = h }

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

// ask gets a document of the delegate as JSON; nil if it has none.
func (d *Documents) ask(r *http.Request, path string) []byte {
	if d.delegate == nil {
		return nil
	}
	return ask(r.Context(), d.delegate, path)
}

func (d *Documents) serveIndex(w http.ResponseWriter, r *http.Request) {
	all := Index{Paths: map[string]Entry{}}
	if b := d.ask(r, "/openapi/v3"); b != nil {
		if err := json.Unmarshal(b, &all); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	d.addPaths(r, &all)
	maps.Copy(all.Paths, d.index)
	b, err := json.Marshal(all)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, r, b, "application/json", nil)
}

// delegated tells whether the delegate has a document at path: asked for any other it would answer with nothing.
func (d *Documents) delegated(r *http.Request, path string) bool {
	var in Index
	if b := d.ask(r, "/openapi/v3"); b == nil || json.Unmarshal(b, &in) != nil {
		return false
	}
	_, ok := in.Paths[path]
	return ok
}

func (d *Documents) serveV3(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/openapi/v3/")
	e, known := d.index[path]
	if h := d.source(path); !known && h != nil {
		h.ServeHTTP(w, r)
		return
	}
	if !known && d.delegated(r, path) {
		d.delegate.ServeHTTP(w, r)
		return
	}
	if !known {
		http.NotFound(w, r)
		return
	}
	b, err := embedded(fileName(path))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, own, _ := strings.Cut(e.URL, "hash=")
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != own {
			http.Redirect(w, r, e.URL, http.StatusMovedPermanently)
			return
		}
		// The URL names the content: it never changes.
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).Format(time.RFC1123))
	}
	w.Header().Set("Etag", `"`+own+`"`)
	negotiate(w, r, b, []string{"application/json", v3Proto, v3ProtoAt}, handler3.ToV3ProtoBinary)
}

func (d *Documents) serveV2(w http.ResponseWriter, r *http.Request) {
	doc, err := embedded("v2.json.zst")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if more := d.ask(r, "/openapi/v2"); more != nil {
		if doc, err = merge(doc, more); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if doc, err = d.withSources(r, doc); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	negotiate(w, r, doc, []string{"application/json", v2Proto, v2ProtoAt}, handler.ToProtoBinary)
}

// merge adds the delegate's document to the built-in one.
func merge(own, more []byte) ([]byte, error) {
	var dest, source spec.Swagger
	if err := errors.Join(json.Unmarshal(own, &dest), json.Unmarshal(more, &source)); err != nil {
		return own, fmt.Errorf("merge OpenAPI documents: %w", err)
	}
	if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(&dest, &source); err != nil {
		return own, fmt.Errorf("merge OpenAPI documents: %w", err)
	}
	return json.Marshal(&dest)
}

// fileName of a path's document under spec.
func fileName(path string) string { return strings.ReplaceAll(path, "/", "_") + ".json.zst" }

// dictionary is the document that all others are compressed by: every group has its metadata, several its pods.
const dictionary = "api_v1.json.zst"

// embedded reads a document. It keeps nothing: who asks for one asks once, and remembers it by its hash.
func embedded(name string) ([]byte, error) {
	read := func(name string, options ...zstd.DOption) ([]byte, error) {
		b, err := files.ReadFile("spec/" + name)
		if err != nil {
			return nil, err
		}
		z, err := zstd.NewReader(nil, append(options, zstd.WithDecoderConcurrency(1))...)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return z.DecodeAll(b, nil)
	}
	shared, err := read(dictionary)
	if err != nil || name == dictionary {
		return shared, err
	}
	return read(name, zstd.WithDecoderDictRaw(dictionaryID, shared))
}

// dictionaryID is any number: files and reader agree on it.
const dictionaryID = 1

func negotiate(w http.ResponseWriter, r *http.Request, doc []byte, offers []string, toProto func([]byte) ([]byte, error)) {
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

// write sends a document, compressed if the client takes that.
func write(w http.ResponseWriter, r *http.Request, doc []byte, mediaType string, convert func([]byte) ([]byte, error)) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	if convert != nil {
		var err error
		if doc, err = convert(doc); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_, _ = w.Write(doc)
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // fails for no such level
	_, _ = z.Write(doc)
	_ = z.Close()
}
