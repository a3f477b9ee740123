package informer

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// kind is an informer with its lister, which is what every TypedXInformer of the library is.
type kind[I, L any] struct {
	f       *factory
	example runtime.Object
	list    func(cache.Indexer) L
}

func kindOf[I, L any](f *factory, example runtime.Object, list func(cache.Indexer) L) kind[I, L] {
	return kind[I, L]{f, example, list}
}

func (k kind[I, L]) Informer() cache.SharedIndexInformer { return k.f.of(k.example) }
func (k kind[I, L]) Lister() L                           { return k.list(k.Informer().GetIndexer()) }

// TypedInformer would link a hundred functions for each kind, and nobody here or in the libraries asks for it.
func (k kind[I, L]) TypedInformer() I { panic("informer: there is Informer instead of TypedInformer") }

// resourceOf an object of the client's scheme; false: the scheme has no such type.
func resourceOf(example runtime.Object) (schema.GroupVersionResource, bool) {
	kinds, _, err := scheme.Scheme.ObjectKinds(example)
	if err != nil {
		return schema.GroupVersionResource{}, false
	}
	plural, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return plural, true
}

// exampleOf a resource, nil if there is none of it in the client's scheme.
func exampleOf(r schema.GroupVersionResource) runtime.Object {
	for kind := range scheme.Scheme.KnownTypes(r.GroupVersion()) {
		gvk := r.GroupVersion().WithKind(kind)
		if plural, _ := meta.UnsafeGuessKindToResource(gvk); plural == r {
			if object, err := scheme.Scheme.New(gvk); err == nil {
				return object
			}
		}
	}
	return nil
}

// clientOf a group version, nil if it is none of those here.
func clientOf(c kubernetes.Interface, gv schema.GroupVersion) rest.Interface {
	switch gv.String() {
	case "v1":
		return c.CoreV1().RESTClient()
	case "admissionregistration.k8s.io/v1":
		return c.AdmissionregistrationV1().RESTClient()
	case "apps/v1":
		return c.AppsV1().RESTClient()
	case "autoscaling/v2":
		return c.AutoscalingV2().RESTClient()
	case "batch/v1":
		return c.BatchV1().RESTClient()
	case "certificates.k8s.io/v1":
		return c.CertificatesV1().RESTClient()
	case "coordination.k8s.io/v1":
		return c.CoordinationV1().RESTClient()
	case "discovery.k8s.io/v1":
		return c.DiscoveryV1().RESTClient()
	case "flowcontrol.apiserver.k8s.io/v1":
		return c.FlowcontrolV1().RESTClient()
	case "networking.k8s.io/v1":
		return c.NetworkingV1().RESTClient()
	case "node.k8s.io/v1":
		return c.NodeV1().RESTClient()
	case "policy/v1":
		return c.PolicyV1().RESTClient()
	case "rbac.authorization.k8s.io/v1":
		return c.RbacV1().RESTClient()
	case "resource.k8s.io/v1":
		return c.ResourceV1().RESTClient()
	case "scheduling.k8s.io/v1":
		return c.SchedulingV1().RESTClient()
	case "storagemigration.k8s.io/v1":
		return c.StoragemigrationV1().RESTClient()
	case "storage.k8s.io/v1":
		return c.StorageV1().RESTClient()
	}
	return nil
}
