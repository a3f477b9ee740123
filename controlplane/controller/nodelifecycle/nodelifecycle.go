package nodelifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

// grace is how long a node may be silent before it counts as gone.
const grace = 40 * time.Second

const byNode = "node"

type watcher struct {
	controller.Deps
	nodes, pods, leases cache.SharedIndexInformer

	mu       sync.Mutex
	seen     map[string]sight                // by node
	tainted  map[string]map[string]time.Time // by node and taint, since when we see one that does not say since when it is there
	cutOff   bool                            // nobody is heard of
	reunited time.Time                       // when somebody was heard of again after that
}

// sight is the last change of a node's Lease, by our clock.
type sight struct {
	renewed time.Time // what the Lease says
	at      time.Time // when we saw it say so
}

// New returns the controller; keys are nodes.
func New(d controller.Deps) (*controller.Loop, error) {
	core := d.Informers.Core().V1()
	w := &watcher{Deps: d, nodes: core.Nodes().Informer(), pods: core.Pods().Informer(), leases: d.Informers.Coordination().V1().Leases().Informer(),
		seen: map[string]sight{}, tainted: map[string]map[string]time.Time{}}
	loop := controller.NewLoop("nodelifecycle", d.Log, 2, w.reconcile)
	return loop, errors.Join(
		w.pods.AddIndexers(cache.Indexers{byNode: func(obj any) ([]string, error) { return []string{obj.(*corev1.Pod).Spec.NodeName}, nil }}),
		controller.Watch(loop, w.nodes, func(n, _ *corev1.Node) []string {
			if w.reunites(n) {
				return w.nodes.GetIndexer().ListKeys()
			}
			return []string{n.Name}
		}),
		controller.Watch(loop, w.leases, func(l, _ *coordinationv1.Lease) []string {
			if l.Namespace != corev1.NamespaceNodeLease {
				return nil
			}
			if !w.sighted(l) {
				return nil
			}
			return []string{l.Name}
		}),
		controller.Watch(loop, w.pods, func(pod, old *corev1.Pod) []string {
			if pod.Spec.NodeName == "" || old != nil && old.Spec.NodeName == pod.Spec.NodeName {
				return nil
			}
			return []string{pod.Spec.NodeName}
		}))
}

// sighted notes a renewal. It returns true where the node's fate may change by it: it had been silent, or is new.
func (w *watcher) sighted(l *coordinationv1.Lease) bool {
	var renewed time.Time
	if l.Spec.RenewTime != nil {
		renewed = l.Spec.RenewTime.Time
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	last, known := w.seen[l.Name]
	if known && last.renewed.Equal(renewed) {
		return false
	}
	w.seen[l.Name] = sight{renewed: renewed, at: time.Now()}
	return !known || time.Since(last.at) > grace
}

func (w *watcher) reconcile(ctx context.Context, name string) (time.Duration, error) {
	node := controller.Get[corev1.Node](w.nodes, name)
	if node == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.seen, name)
		delete(w.tainted, name)
		return 0, nil
	}
	node = node.DeepCopy()
	left := w.lease(node)
	if left <= 0 {
		left = 0 // silent: the next renewal brings us back
		if silence(&node.Status, metav1.Now()) {
			updated, err := w.Client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
			if err != nil {
				return 0, ignoreGone(err)
			}
			w.Events.Eventf(node, corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", name)
			node = updated
			if err := w.unready(ctx, name); err != nil {
				return 0, err
			}
		}
	}
	if taints, changed := retaint(node, metav1.Now()); changed {
		node.Spec.Taints = taints
		updated, err := w.Client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		if err != nil {
			return 0, ignoreGone(err)
		}
		node = updated
	}
	next, err := w.evict(ctx, node)
	return sooner(left, next), err
}

// lease is how long the node may still be silent. A node whose Lease we never saw gets the grace from now on.
func (w *watcher) lease(node *corev1.Node) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.seen[node.Name]
	if !ok {
		s = sight{at: time.Now()}
		w.seen[node.Name] = s
	}
	return grace - time.Since(s.at)
}

// unready marks a silent node's pods not ready, so that Services stop sending to them.
func (w *watcher) unready(ctx context.Context, node string) error {
	objs, err := w.pods.GetIndexer().ByIndex(byNode, node)
	if err != nil {
		return err
	}
	var errs []error
	for _, obj := range objs {
		pod := obj.(*corev1.Pod).DeepCopy()
		i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if i < 0 {
			continue
		}
		c := &pod.Status.Conditions[i]
		c.Status, c.Reason, c.Message, c.LastTransitionTime = corev1.ConditionFalse, "NodeNotReady", "Node is not ready", metav1.Now()
		_, err := w.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		errs = append(errs, ignoreGone(err))
	}
	return errors.Join(errs...)
}

// evict deletes the pods whose time on a tainted node is over and returns when the next one's will be.
func (w *watcher) evict(ctx context.Context, node *corev1.Node) (time.Duration, error) {
	taints := w.counted(node.Name, node.Spec.Taints)
	if !slices.ContainsFunc(taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute }) || w.allSilent() {
		return 0, nil
	}
	objs, err := w.pods.GetIndexer().ByIndex(byNode, node.Name)
	if err != nil {
		return 0, err
	}
	var next time.Duration
	var errs []error
	now := time.Now()
	for _, obj := range objs {
		pod := obj.(*corev1.Pod)
		if pod.DeletionTimestamp != nil || pod.Annotations[corev1.MirrorPodAnnotationKey] != "" {
			continue
		}
		until, forever := stay(pod, taints, now)
		switch {
		case forever:
		case until.After(now):
			next = sooner(next, until.Sub(now))
		default:
			errs = append(errs, w.remove(ctx, pod))
		}
	}
	return next, errors.Join(errs...)
}

// allSilent: none of the nodes is heard of, so it is probably us who are cut off.
func (w *watcher) allSilent() bool {
	nodes := w.nodes.GetIndexer().List()
	for _, obj := range nodes {
		if statusOf(obj.(*corev1.Node), corev1.NodeReady) != corev1.ConditionUnknown {
			return false
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutOff = len(nodes) > 0
	return w.cutOff
}

// reunites tells whether node is the first that is heard of after a silence of all.
func (w *watcher) reunites(node *corev1.Node) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cutOff || statusOf(node, corev1.NodeReady) == corev1.ConditionUnknown {
		return false
	}
	w.cutOff, w.reunited = false, time.Now()
	return true
}

// counted are a node's taints as pods' patience counts them: what fell into a silence of all counts from its end, for the others are
// about to be heard of too; one that does not say since when it is there (only ours do) counts from when we first saw it.
func (w *watcher) counted(node string, taints []corev1.Taint) []corev1.Taint {
	w.mu.Lock()
	defer w.mu.Unlock()
	taints = slices.Clone(taints)
	first := map[string]time.Time{}
	for i := range taints {
		t := &taints[i]
		switch {
		case t.Effect != corev1.TaintEffectNoExecute:
		case t.TimeAdded == nil:
			at, known := w.tainted[node][t.ToString()]
			if !known {
				at = time.Now()
			}
			first[t.ToString()] = at
			t.TimeAdded = &metav1.Time{Time: at}
		case t.Key == corev1.TaintNodeUnreachable && t.TimeAdded.Time.Before(w.reunited):
			t.TimeAdded = &metav1.Time{Time: w.reunited}
		}
	}
	w.tainted[node] = first
	return taints
}

func (w *watcher) remove(ctx context.Context, pod *corev1.Pod) error {
	w.Events.Eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", pod.Namespace, pod.Name)
	mark := applycorev1.Pod(pod.Name, pod.Namespace).WithUID(pod.UID).WithStatus(applycorev1.PodStatus().WithConditions(applycorev1.PodCondition().
		WithType(corev1.DisruptionTarget).WithStatus(corev1.ConditionTrue).WithReason("DeletionByTaintManager").
		WithMessage("Taint manager: deleting due to NoExecute taint").WithLastTransitionTime(metav1.Now())))
	_, err := w.Client.CoreV1().Pods(pod.Namespace).ApplyStatus(ctx, mark, metav1.ApplyOptions{FieldManager: "taint-eviction-controller", Force: true})
	if err == nil {
		err = w.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	}
	if err := ignoreGone(err); err != nil {
		return fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// sooner is the smaller of two waits; 0 means none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
