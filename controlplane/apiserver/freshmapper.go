package apiserver

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	mapperAge  = 30 * time.Second // as long as upstream's admission trusts what it has read of discovery
	mapperMiss = time.Second      // as often as the library's policies ask again for a kind that they miss
)

// freshMapper knows kinds that came after it was made: a definition's policy is often written at the same time as the definition. It
// reads discovery anew only when asked: who has no policies with parameters pays nothing.
type freshMapper struct {
	meta.ResettableRESTMapper
	now func() time.Time

	mu   sync.Mutex
	read time.Time
}

func (m *freshMapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	m.forget(mapperAge)
	found, err := m.ResettableRESTMapper.RESTMapping(kind, versions...)
	if meta.IsNoMatchError(err) && m.forget(mapperMiss) {
		return m.ResettableRESTMapper.RESTMapping(kind, versions...)
	}
	return found, err
}

// forget lets the next lookup read discovery if what is known is of that age.
func (m *freshMapper) forget(age time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if now.Sub(m.read) < age {
		return false
	}
	m.read = now
	m.Reset()
	return true
}
