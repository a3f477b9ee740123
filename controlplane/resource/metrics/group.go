package metrics

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"keelson.dev/keelson/controlplane/resource"
)

// Look returns two looks at each of these nodes' kubelets, the second one fresh; a node that does not answer is left out,
// and the error says why.
type Look func(ctx context.Context, nodes []string) (map[string]Pair, error)

// Pair is two looks at one kubelet.
type Pair struct{ Old, Now Sample }

// Group is metrics.k8s.io.
func Group(look Look) resource.Group {
	nodes := row[*corev1.Node, *metricsv1beta1.NodeMetrics]{
		resource: "nodes", singular: "node", empty: &metricsv1beta1.NodeMetrics{}, emptyList: &metricsv1beta1.NodeMetricsList{},
		look: look, where: func(n *corev1.Node) string { return n.Name }, of: OfNode,
		usage: func(m *metricsv1beta1.NodeMetrics) ([]corev1.ResourceList, metav1.Duration) {
			return []corev1.ResourceList{m.Usage}, m.Window
		},
	}
	pods := row[*corev1.Pod, *metricsv1beta1.PodMetrics]{
		resource: "pods", singular: "pod", namespaced: true, empty: &metricsv1beta1.PodMetrics{}, emptyList: &metricsv1beta1.PodMetricsList{},
		look: look, where: func(p *corev1.Pod) string { return p.Spec.NodeName }, of: OfPod,
		usage: func(m *metricsv1beta1.PodMetrics) (all []corev1.ResourceList, window metav1.Duration) {
			for _, c := range m.Containers {
				all = append(all, c.Usage)
			}
			return all, m.Window
		},
	}
	return resource.Group{
		Name: metricsv1beta1.GroupName, Versions: []string{"v1beta1"},
		AddToScheme: []func(*runtime.Scheme) error{metricsv1beta1.AddToScheme},
		Kinds:       []resource.Kind{nodes.kind("NodeMetrics"), pods.kind("PodMetrics")},
	}
}

// row describes a kind whose objects are worked out of another kind's (K) and the looks at their nodes.
type row[K, M runtime.Object] struct {
	resource, singular string
	namespaced         bool
	empty              M
	emptyList          runtime.Object
	look               Look
	where              func(K) string
	of                 func(K, Sample, Sample) (M, bool)
	usage              func(M) ([]corev1.ResourceList, metav1.Duration)
}

func (r row[K, M]) kind(name string) resource.Kind {
	return resource.Kind{
		Kind: name, Plural: r.resource, Singular: r.singular, Namespaced: r.namespaced, Verbs: []string{"get", "list"},
		New: r.New, NewList: r.NewList,
		Storage: func(d resource.Deps) (rest.Storage, error) { return virtual[K, M]{row: r, deps: d}, nil },
	}
}

func (r row[K, M]) New() runtime.Object     { return r.empty.DeepCopyObject() }
func (r row[K, M]) NewList() runtime.Object { return r.emptyList.DeepCopyObject() }
func (r row[K, M]) Destroy()                {}
func (r row[K, M]) NamespaceScoped() bool   { return r.namespaced }
func (r row[K, M]) GetSingularName() string { return r.singular }

type virtual[K, M runtime.Object] struct {
	row[K, M]
	deps resource.Deps
}

var (
	_ rest.Lister               = virtual[*corev1.Pod, *metricsv1beta1.PodMetrics]{}
	_ rest.Getter               = virtual[*corev1.Pod, *metricsv1beta1.PodMetrics]{}
	_ rest.Scoper               = virtual[*corev1.Pod, *metricsv1beta1.PodMetrics]{}
	_ rest.SingularNameProvider = virtual[*corev1.Pod, *metricsv1beta1.PodMetrics]{}
)

// List answers for everything that is selected and measured.
func (v virtual[K, M]) List(ctx context.Context, o *internalversion.ListOptions) (runtime.Object, error) {
	from := &internalversion.ListOptions{ResourceVersion: "0"}
	if o != nil {
		from.LabelSelector, from.FieldSelector = o.LabelSelector, o.FieldSelector
	}
	list, err := v.deps.Store(corev1.Resource(v.resource)).List(ctx, from)
	if err != nil {
		return nil, err
	}
	var of []K
	err = apimeta.EachListItem(list, func(obj runtime.Object) error {
		of = append(of, obj.(K))
		return nil
	})
	if err != nil {
		return nil, err
	}
	found, err := v.measure(ctx, of)
	if len(found) == 0 && err != nil {
		return nil, unavailable(err)
	}
	out := v.NewList()
	return out, apimeta.SetList(out, found)
}

// Get answers for one.
func (v virtual[K, M]) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	obj, err := v.deps.Store(corev1.Resource(v.resource)).Get(ctx, name, &metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	found, err := v.measure(ctx, []K{obj.(K)})
	switch {
	case len(found) > 0:
		return found[0], nil
	case err != nil:
		return nil, unavailable(err)
	}
	return nil, apierrors.NewNotFound(metricsv1beta1.Resource(v.resource), name)
}

func unavailable(err error) error {
	return apierrors.NewServiceUnavailable(fmt.Sprintf("no kubelet answers with metrics: %v", err))
}

func (v virtual[K, M]) measure(ctx context.Context, of []K) ([]runtime.Object, error) {
	var nodes []string
	for _, k := range of {
		if n := v.where(k); n != "" {
			nodes = append(nodes, n)
		}
	}
	slices.Sort(nodes)
	seen, err := v.look(ctx, slices.Compact(nodes))
	out := []runtime.Object{}
	for _, k := range of {
		if p, ok := seen[v.where(k)]; ok {
			if m, ok := v.of(k, p.Old, p.Now); ok {
				out = append(out, m)
			}
		}
	}
	return out, err
}

// ConvertToTable prints as metrics-server does.
func (v virtual[K, M]) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"}, {Name: "cpu", Type: "string"}, {Name: "memory", Type: "string"}, {Name: "Window", Type: "string"}}}
	add := func(obj runtime.Object) error {
		m := obj.(M)
		acc, err := apimeta.Accessor(m)
		if err != nil {
			return err
		}
		lists, window := v.usage(m)
		var cpu, memory apiresource.Quantity
		for _, l := range lists {
			cpu.Add(*l.Cpu())
			memory.Add(*l.Memory())
		}
		t.Rows = append(t.Rows, metav1.TableRow{Object: runtime.RawExtension{Object: m},
			Cells: []any{acc.GetName(), cpu.String(), fmt.Sprintf("%dKi", memory.Value()>>10), window.Duration.String()}})
		return nil
	}
	if apimeta.IsListType(obj) {
		return t, apimeta.EachListItem(obj, add)
	}
	return t, add(obj)
}
