package source

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Sink takes in what sources find. Its methods must not block for long.
type Sink interface {
	// Set brings a new pod or a new version of one.
	Set(pod *corev1.Pod)
	// Drop says that the source no longer has the pod. pod is the last version known.
	Drop(pod *corev1.Pod)
}

// API watches the pods that are bound to one node.
type API struct {
	informer cache.SharedIndexInformer
	sink     Sink
	node     string
}

// NewAPI makes the source for the pods of node.
func NewAPI(client kubernetes.Interface, node string, sink Sink) (*API, error) {
	pods := client.CoreV1().Pods(metav1.NamespaceAll)
	mine := fields.OneTermEqualSelector("spec.nodeName", node).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = mine
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = mine
			return pods.Watch(ctx, o)
		},
	}
	a := &API{sink: sink, node: node}
	a.informer = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, client), &corev1.Pod{}, 0, nil)
	if err := a.informer.SetTransform(slim); err != nil {
		return nil, fmt.Errorf("set up the pod watch: %w", err)
	}
	_, err := a.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    a.set,
		UpdateFunc: func(_, now any) { a.set(now) },
		DeleteFunc: a.drop,
	})
	if err != nil {
		return nil, fmt.Errorf("set up the pod watch: %w", err)
	}
	return a, nil
}

// slim drops what the kubelet never reads and what makes up much of a pod's size.
func slim(obj any) (any, error) {
	if p, is := obj.(*corev1.Pod); is {
		p.ManagedFields = nil
	}
	return obj, nil
}

// Run watches until ctx ends.
func (a *API) Run(ctx context.Context) error {
	a.informer.RunWithContext(ctx)
	return nil
}

// Synced tells whether all pods that there were at the start have been handed to the sink's side of the watch.
func (a *API) Synced() bool { return a.informer.HasSynced() }

// Pods returns all pods known now.
func (a *API) Pods() []*corev1.Pod {
	var out []*corev1.Pod
	for _, obj := range a.informer.GetStore().List() {
		if p, is := obj.(*corev1.Pod); is && p.Spec.NodeName == a.node {
			out = append(out, p)
		}
	}
	return out
}

// Get returns the named pod as last seen, or nil.
func (a *API) Get(namespace, name string) *corev1.Pod {
	obj, has, err := a.informer.GetStore().GetByKey(namespace + "/" + name)
	if err != nil || !has {
		return nil
	}
	p, _ := obj.(*corev1.Pod)
	return p
}

func (a *API) set(obj any) {
	if p, is := obj.(*corev1.Pod); is && p.Spec.NodeName == a.node {
		a.sink.Set(p)
	}
}

func (a *API) drop(obj any) {
	if gone, is := obj.(cache.DeletedFinalStateUnknown); is {
		obj = gone.Obj
	}
	if p, is := obj.(*corev1.Pod); is && p.Spec.NodeName == a.node {
		a.sink.Drop(p)
	}
}
