package apiserver

import (
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// lazyConverter gives server-side apply the schema of the built-in types. Parsing it takes longer than all else at
// start, so it happens on first use or when warm is called, whichever comes first.
type lazyConverter struct {
	get func() managedfields.TypeConverter
}

func newLazyConverter(scheme *runtime.Scheme) lazyConverter {
	return lazyConverter{get: sync.OnceValue(func() managedfields.TypeConverter {
		return applyconfigurations.NewTypeConverter(scheme)
	})}
}

func (l lazyConverter) warm() { l.get() }

// ObjectToTyped falls back to the object's own shape for the few kinds without a schema: bodies of subresources that no
// apply can name (Binding, Eviction).
func (l lazyConverter) ObjectToTyped(o runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	v, err := l.get().ObjectToTyped(o, opts...)
	if err != nil && strings.Contains(err.Error(), "no type found matching") {
		return managedfields.NewDeducedTypeConverter().ObjectToTyped(o, opts...)
	}
	return v, err
}

func (l lazyConverter) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	return l.get().TypedToObject(v)
}
