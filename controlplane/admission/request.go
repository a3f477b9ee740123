package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
)

var (
	pods       = schema.GroupResource{Resource: "pods"}
	nodes      = schema.GroupResource{Resource: "nodes"}
	claims     = schema.GroupResource{Resource: "persistentvolumeclaims"}
	volumes    = schema.GroupResource{Resource: "persistentvolumes"}
	accounts   = schema.GroupResource{Resource: "serviceaccounts"}
	namespaces = schema.GroupResource{Resource: "namespaces"}
)

// object returns the request's object, if the request is about the resource itself (no subresource).
func object[T any](a admission.Attributes, gr schema.GroupResource) (T, bool) {
	var none T
	if a.GetSubresource() != "" || a.GetResource().GroupResource() != gr {
		return none, false
	}
	obj, ok := a.GetObject().(T)
	return obj, ok
}

func isMirror(p *corev1.Pod) bool {
	_, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}

// admitter is a plugin that only fills in.
type admitter struct {
	*admission.Handler
	admit func(context.Context, admission.Attributes) error
}

func (p admitter) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return p.admit(ctx, a)
}

// validator is a plugin that only judges.
type validator struct {
	*admission.Handler
	validate func(context.Context, admission.Attributes) error
}

func (p validator) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return p.validate(ctx, a)
}

// both is a plugin that fills in and judges.
type both struct {
	admitter
	validate func(context.Context, admission.Attributes) error
}

func (p both) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return p.validate(ctx, a)
}
