package kubelet

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// cluster is what the kubelet reads from the API beside pods: services and its own node by watch, the objects that
// a pod refers to one by one (Node authorization grants no more).
type cluster struct {
	client   kubernetes.Interface
	node     string
	services cache.SharedIndexInformer
	nodes    cache.SharedIndexInformer
}

func newCluster(client kubernetes.Interface, node string) *cluster {
	c := &cluster{client: client, node: node}
	services, nodes := client.CoreV1().Services(metav1.NamespaceAll), client.CoreV1().Nodes()
	c.services = informer(client, &corev1.Service{}, "",
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return services.List(ctx, o) },
		services.Watch)
	c.nodes = informer(client, &corev1.Node{}, fields.OneTermEqualSelector("metadata.name", node).String(),
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return nodes.List(ctx, o) },
		nodes.Watch)
	return c
}

func informer(client kubernetes.Interface, kind runtime.Object, selector string,
	list func(context.Context, metav1.ListOptions) (runtime.Object, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error),
) cache.SharedIndexInformer {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return list(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return follow(ctx, o)
		},
	}
	return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, client), kind, 0,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}

// ConfigMap reads one ConfigMap.
func (c *cluster) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	cm, err := c.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	return cm, known(err, "configmap", name)
}

// Secret reads one Secret.
func (c *cluster) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	s, err := c.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	return s, known(err, "secret", name)
}

// known words a missing object as kubelets do ("configmap ... not found"), which tools look for in statuses.
func known(err error, kind, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
	}
	return err
}

// Services returns those of a namespace and default/kubernetes. It waits for the first list, because a container
// that started without its service variables never gets them.
func (c *cluster) Services(ctx context.Context, namespace string) ([]*corev1.Service, error) {
	if !c.services.HasSynced() && !cache.WaitForCacheSync(ctx.Done(), c.services.HasSynced) {
		return nil, fmt.Errorf("services are not known yet: %w", ctx.Err())
	}
	objs, err := c.services.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil, err
	}
	var out []*corev1.Service
	for _, o := range objs {
		if s, is := o.(*corev1.Service); is {
			out = append(out, s)
		}
	}
	if namespace != metav1.NamespaceDefault {
		if o, has, _ := c.services.GetStore().GetByKey(metav1.NamespaceDefault + "/kubernetes"); has {
			if s, is := o.(*corev1.Service); is {
				out = append(out, s)
			}
		}
	}
	return out, nil
}

// RuntimeHandler is the CRI handler of a RuntimeClass.
func (c *cluster) RuntimeHandler(ctx context.Context, class string) (string, error) {
	rc, err := c.client.NodeV1().RuntimeClasses().Get(ctx, class, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return rc.Handler, nil
}

var errNoNode = errors.New("this node is not registered yet")

// Node is this node as last seen.
func (c *cluster) Node() (*corev1.Node, error) {
	o, has, err := c.nodes.GetStore().GetByKey(c.node)
	if err != nil {
		return nil, err
	}
	n, is := o.(*corev1.Node)
	if !has || !is {
		return nil, errNoNode
	}
	return n, nil
}
