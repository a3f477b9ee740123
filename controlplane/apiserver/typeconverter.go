package apiserver

import (
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

func (l lazyConverter) ObjectToTyped(o runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	return l.get().ObjectToTyped(o, opts...)
}

func (l lazyConverter) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	return l.get().TypedToObject(v)
}
