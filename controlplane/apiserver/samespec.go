package apiserver

import (
	"sync"
	"weak"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// sameSpec is a codec by which the watch cache's objects of one definition share their spec while it does not change. The cache keeps
// the last hundred events, and a definition is written four times before it is served: without, each of them would hold schemas anew,
// megabytes for one of the large ones.
//
// Only what is decoded into no object of the caller's is the cache's, whose objects nobody changes.
type sameSpec struct {
	runtime.Codec

	mu   sync.Mutex
	last map[string]weak.Pointer[apiextensions.CustomResourceDefinition] // by name; the cache keeps it alive
}

func (c *sameSpec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, gvk, err := c.Codec.Decode(data, defaults, into)
	if crd, ok := obj.(*apiextensions.CustomResourceDefinition); ok && err == nil && into == nil {
		c.share(crd)
	}
	return obj, gvk, err
}

// share has crd take the spec of the one that was decoded last, if that is the same: the generation changes with it.
func (c *sameSpec) share(crd *apiextensions.CustomResourceDefinition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.last[crd.Name].Value(); have != nil && versionOf(have) == versionOf(crd) {
		crd.Spec = have.Spec
	}
	for name, p := range c.last {
		if p.Value() == nil {
			delete(c.last, name)
		}
	}
	if c.last == nil {
		c.last = map[string]weak.Pointer[apiextensions.CustomResourceDefinition]{}
	}
	c.last[crd.Name] = weak.Make(crd)
}

type specVersion struct {
	uid        types.UID
	generation int64
}

func versionOf(crd *apiextensions.CustomResourceDefinition) specVersion {
	return specVersion{crd.UID, crd.Generation}
}
