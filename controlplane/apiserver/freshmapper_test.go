package apiserver

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// staleMapper knows the kinds that existed at its last reset.
type staleMapper struct {
	meta.RESTMapper
	served, known map[string]bool
	resets        int
}

func (m *staleMapper) Reset() {
	m.resets++
	m.known = map[string]bool{}
	for k := range m.served {
		m.known[k] = true
	}
}

func (m *staleMapper) RESTMapping(kind schema.GroupKind, _ ...string) (*meta.RESTMapping, error) {
	if !m.known[kind.Kind] {
		return nil, &meta.NoKindMatchError{GroupKind: kind}
	}
	return &meta.RESTMapping{}, nil
}

func TestFreshMapper(t *testing.T) {
	now := time.Unix(1000, 0)
	inner := &staleMapper{served: map[string]bool{"Old": true}}
	m := &freshMapper{ResettableRESTMapper: inner, now: func() time.Time { return now }}
	found := func(kind string, want bool, resets int) {
		t.Helper()
		_, err := m.RESTMapping(schema.GroupKind{Group: "g", Kind: kind}, "v1")
		if (err == nil) != want || inner.resets != resets {
			t.Errorf("%s: %v after %d readings, want %v after %d", kind, err, inner.resets, want, resets)
		}
	}
	found("Old", true, 1)
	inner.served["New"] = true
	found("New", false, 1) // asked too soon after the last reading
	now = now.Add(mapperMiss)
	found("New", true, 2)
	found("Old", true, 2)
	delete(inner.served, "Old")
	found("Old", true, 2)
	now = now.Add(mapperAge)
	found("Old", false, 3)
}
