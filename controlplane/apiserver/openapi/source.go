package openapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const (
	// sourceLimit is how long a source may take to answer before the documents are made without it.
	sourceLimit = 3 * time.Second
	// sourceMemory is how long what a source said is believed.
	sourceMemory = 10 * time.Second
)

// Source has the documents of one group version that another server serves.
type Source struct {
	Path    string // apis/GROUP/VERSION
	Handler http.Handler
}

// answers remembers what sources said a moment ago: clients come in bursts, and a slow source should cost one of them.
type answers struct {
	mu sync.Mutex
	at map[string]answer
}

type answer struct {
	body []byte // nil: none
	till time.Time
}

func (a *answers) get(key string, now time.Time, ask func() []byte) []byte {
	a.mu.Lock()
	known, ok := a.at[key]
	a.mu.Unlock()
	if ok && now.Before(known.till) {
		return known.body
	}
	body := ask()
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, old := range a.at {
		if now.After(old.till) {
			delete(a.at, k)
		}
	}
	if a.at == nil {
		a.at = map[string]answer{}
	}
	a.at[key] = answer{body, now.Add(sourceMemory)}
	return body
}

// fromSources asks all sources for path at once and returns what they say, in their order; nil where one says nothing.
func (d *Documents) fromSources(r *http.Request, path string) ([]Source, [][]byte) {
	if d.Sources == nil {
		return nil, nil
	}
	sources := d.Sources()
	bodies := make([][]byte, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Go(func() {
			bodies[i] = d.said.get(path+" "+s.Path, time.Now(), func() []byte { return askWithin(r.Context(), s.Handler, path) })
		})
	}
	wg.Wait()
	return sources, bodies
}

func askWithin(ctx context.Context, h http.Handler, path string) []byte {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sourceLimit)
	defer cancel()
	return ask(ctx, h, path)
}

// ask gets a document as JSON; nil if there is none.
func ask(ctx context.Context, h http.Handler, path string) []byte {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil
	}
	req.Header.Set("Accept", "application/json")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if rec.Code != http.StatusOK {
		return nil
	}
	return rec.Body.Bytes()
}

// addPaths adds the sources' own paths to an index, and nothing else that they say they have.
func (d *Documents) addPaths(r *http.Request, all *Index) {
	sources, bodies := d.fromSources(r, "/openapi/v3")
	for i, s := range sources {
		var in Index
		if bodies[i] == nil || json.Unmarshal(bodies[i], &in) != nil {
			continue
		}
		if e, ok := in.Paths[s.Path]; ok {
			all.Paths[s.Path] = e
		}
	}
}

// source returns who has the document at path; nil if no source has.
func (d *Documents) source(path string) http.Handler {
	if d.Sources == nil {
		return nil
	}
	for _, s := range d.Sources() {
		if s.Path == path {
			return s.Handler
		}
	}
	return nil
}

// withSources merges the sources' documents into dest: their own paths only, and the definitions that these use.
func (d *Documents) withSources(r *http.Request, doc []byte) ([]byte, error) {
	sources, bodies := d.fromSources(r, "/openapi/v2")
	for i, s := range sources {
		var in spec.Swagger
		if bodies[i] == nil || json.Unmarshal(bodies[i], &in) != nil {
			continue
		}
		own := aggregator.FilterSpecByPathsWithoutSideEffects(&in, []string{"/" + s.Path + "/"})
		b, err := json.Marshal(own)
		if err != nil {
			continue
		}
		if doc, err = merge(doc, b); err != nil {
			return doc, errors.Join(err, fmt.Errorf("documents of %s", s.Path))
		}
	}
	return doc, nil
}
