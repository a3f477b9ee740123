package namespace

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

// again is how soon a namespace is looked at when nothing that we watch will say that it is empty (other kinds than pods).
const again = time.Second

// Deps are what this controller needs beyond every controller's.
type Deps struct {
	controller.Deps
	Discovery discovery.ServerResourcesInterface
	Metadata  metadata.Interface
}

type emptier struct {
	Deps
	namespaces cache.SharedIndexInformer
}

// New returns the controller; keys are namespaces.
func New(d Deps) (*controller.Loop, error) {
	namespaces := d.Informers.Core().V1().Namespaces().Informer()
	e := &emptier{Deps: d, namespaces: namespaces}
	loop := controller.NewLoop("namespace", d.Log, 4, e.reconcile)
	err := controller.Watch(loop, namespaces, func(ns, _ *corev1.Namespace) []string {
		if ns.DeletionTimestamp == nil {
			return nil
		}
		return []string{ns.Name}
	})
	if err != nil {
		return nil, err
	}
	// The last pod's end is what a namespace usually waits for.
	return loop, controller.Watch(loop, d.Informers.Core().V1().Pods().Informer(), func(pod, _ *corev1.Pod) []string {
		ns := controller.Get[corev1.Namespace](namespaces, pod.Namespace)
		if ns == nil || ns.DeletionTimestamp == nil {
			return nil
		}
		return []string{pod.Namespace}
	})
}

func (e *emptier) reconcile(ctx context.Context, name string) (time.Duration, error) {
	ns := controller.Get[corev1.Namespace](e.namespaces, name)
	if ns == nil || ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	found, discoveryErr := e.Discovery.ServerPreferredNamespacedResources()
	report := e.empty(ctx, name, deletable(found))
	report.discovery = discoveryErr
	if err := e.tell(ctx, ns, report); err != nil {
		return 0, ignoreGone(err)
	}
	if report.done() {
		return 0, ignoreGone(e.release(ctx, ns))
	}
	return again, nil
}

// report is what is left of a namespace after one pass.
type report struct {
	discovery  error
	failed     []string       // "pods: the server's words"
	remaining  map[string]int // "pods." -> how many
	finalizers map[string]int // finalizer -> on how many objects
}

func (r report) done() bool {
	return r.discovery == nil && len(r.failed) == 0 && len(r.remaining) == 0
}

// deletable picks the resources that can be listed and deleted, pods first.
func deletable(lists []*metav1.APIResourceList) []schema.GroupVersionResource {
	var pods, rest []schema.GroupVersionResource
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "deletecollection") || !slices.Contains(r.Verbs, "list") {
				continue
			}
			gvr := gv.WithResource(r.Name)
			switch {
			case gvr.GroupResource() == schema.GroupResource{Resource: "pods"}:
				pods = append(pods, gvr)
			case gvr.GroupResource() == schema.GroupResource{Group: "events.k8s.io", Resource: "events"}:
				// The same objects as core events.
			default:
				rest = append(rest, gvr)
			}
		}
	}
	return append(pods, rest...)
}

// empty deletes everything, one kind after another, and stops behind the pods as long as any is left.
func (e *emptier) empty(ctx context.Context, namespace string, kinds []schema.GroupVersionResource) report {
	r := report{remaining: map[string]int{}, finalizers: map[string]int{}}
	for _, gvr := range kinds {
		if err := e.emptyKind(ctx, namespace, gvr, &r); err != nil {
			r.failed = append(r.failed, gvr.GroupResource().String()+": "+err.Error())
		}
		if gvr.Group == "" && gvr.Resource == "pods" && (len(r.remaining) > 0 || len(r.failed) > 0) {
			break
		}
	}
	return r
}

func (e *emptier) emptyKind(ctx context.Context, namespace string, gvr schema.GroupVersionResource, r *report) error {
	client := e.Metadata.Resource(gvr).Namespace(namespace)
	left, err := client.List(ctx, metav1.ListOptions{})
	if err != nil || len(left.Items) == 0 {
		return ignoreGone(err)
	}
	background := metav1.DeletePropagationBackground
	err = client.DeleteCollection(ctx, metav1.DeleteOptions{PropagationPolicy: &background}, metav1.ListOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if left, err = client.List(ctx, metav1.ListOptions{}); err != nil {
		return ignoreGone(err)
	}
	for _, item := range left.Items {
		r.remaining[fmt.Sprintf("%s.%s", gvr.Resource, gvr.Group)]++
		for _, f := range item.Finalizers {
			r.finalizers[f]++
		}
	}
	return nil
}

// release takes our finalizer away, upon which the API server forgets the namespace.
func (e *emptier) release(ctx context.Context, ns *corev1.Namespace) error {
	ns = ns.DeepCopy()
	ns.ResourceVersion = "" // only the finalizer list is read; a stale object must not stop the end
	ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err := e.Client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	return err
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return nil
	}
	return err
}
