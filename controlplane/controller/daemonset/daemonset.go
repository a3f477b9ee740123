package daemonset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/history"
	"keelson.dev/keelson/controlplane/controller/owner"
)

const workers = 2

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

type spreader struct {
	controller.Deps
	sets, pods, nodes, revisions cache.SharedIndexInformer

	mu   sync.Mutex
	last map[string]map[string]types.UID // of each set's key, the newest pod seen on each node; guarded by mu
}

// New returns the controller; keys are DaemonSets.
func New(d controller.Deps) (*controller.Loop, error) {
	apps, core := d.Informers.Apps().V1(), d.Informers.Core().V1()
	s := &spreader{Deps: d, sets: apps.DaemonSets().Informer(), revisions: apps.ControllerRevisions().Informer(),
		pods: core.Pods().Informer(), nodes: core.Nodes().Informer(), last: map[string]map[string]types.UID{}}
	loop := controller.NewLoop("daemonset", d.Log, workers, s.reconcile)
	loop.Needs(s.revisions)
	return loop, errors.Join(
		controller.Watch(loop, s.sets, func(d, _ *appsv1.DaemonSet) []string { return []string{d.Namespace + "/" + d.Name} }),
		controller.Watch(loop, s.nodes, func(node, old *corev1.Node) []string {
			if old != nil && equality.Semantic.DeepEqual(old.Labels, node.Labels) && equality.Semantic.DeepEqual(old.Spec.Taints, node.Spec.Taints) {
				return nil // a heartbeat
			}
			return s.sets.GetIndexer().ListKeys()
		}),
		controller.Watch(loop, s.pods, func(pod, old *corev1.Pod) []string {
			var keys []string
			for _, p := range []*corev1.Pod{pod, old} {
				if by := metav1.GetControllerOf(cmp.Or(p, pod)); by != nil && by.Kind == kind.Kind {
					keys = append(keys, pod.Namespace+"/"+by.Name)
				}
			}
			return append(keys, owner.Keys(s.sets.GetIndexer(), pod, func(d any) labels.Selector { return owner.Selector(d.(*appsv1.DaemonSet).Spec.Selector) })...)
		}))
}

func (s *spreader) reconcile(ctx context.Context, key string) (time.Duration, error) {
	set := controller.Get[appsv1.DaemonSet](s.sets, key)
	if set == nil || set.DeletionTimestamp != nil {
		s.mu.Lock()
		delete(s.last, key)
		s.mu.Unlock()
		return 0, nil
	}
	all, err := history.Sync(ctx, s.Client, s.revisions.GetIndexer(), history.Owner{Object: set, Kind: kind, Template: &set.Spec.Template, Selector: set.Spec.Selector,
		Live: func() (metav1.Object, error) {
			return s.Client.AppsV1().DaemonSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		}})
	if err != nil {
		return 0, err
	}
	in := input{set: set, hash: history.Hash(all[len(all)-1]), now: time.Now()}
	for _, obj := range s.nodes.GetIndexer().List() {
		in.nodes = append(in.nodes, obj.(*corev1.Node))
	}
	objs, err := s.pods.GetIndexer().ByIndex(cache.NamespaceIndex, set.Namespace)
	if err != nil {
		return 0, err
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return 0, err
	}
	in.pods, err = owner.Claim[*corev1.Pod]{Owner: set, Kind: kind, Selector: selector,
		Live: func() (metav1.Object, error) {
			return s.Client.AppsV1().DaemonSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		},
		Patch: controller.Patcher(ctx, s.Client.CoreV1().Pods(set.Namespace))}.Take(objs)
	if err != nil {
		return 0, err
	}
	used := map[string]bool{}
	for _, pod := range in.pods {
		used[pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
	}
	p := decide(in)
	stepErr := s.step(ctx, in, p, s.seen(key, in.pods))
	if err := s.report(ctx, set, p.status); err != nil {
		return 0, errors.Join(stepErr, err)
	}
	return p.again, errors.Join(stepErr, history.Trim(ctx, s.Client, all, set.Spec.RevisionHistoryLimit,
		func(r *appsv1.ControllerRevision) bool { return used[history.Hash(r)] }))
}

// seen notes a set's newest pod on each node and returns all that were ever noted.
func (s *spreader) seen(key string, pods []*corev1.Pod) map[string]types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last[key] == nil {
		s.last[key] = map[string]types.UID{}
	}
	for _, pod := range slices.SortedFunc(slices.Values(pods), func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	}) {
		s.last[key][nodeOf(pod)] = pod.UID
	}
	return maps.Clone(s.last[key])
}

func (s *spreader) step(ctx context.Context, in input, p plan, last map[string]types.UID) error {
	set, hash := in.set, in.hash
	var errs []error
	for _, pod := range p.failed {
		s.Events.Eventf(set, corev1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", pod.Namespace, pod.Name, pod.Spec.NodeName)
	}
	for _, pod := range p.remove {
		err := s.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
		if err == nil {
			s.Events.Eventf(set, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
		} else if !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err))
		}
	}
	for _, node := range p.create {
		pod := podFor(set, hash, node)
		pod.Name = set.Name + "-" + suffix(set, hash, node, last[node])
		made, err := s.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
		switch {
		case err == nil:
			s.Events.Eventf(set, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", made.Name)
		case controller.Terminating(err), apierrors.IsAlreadyExists(err):
		default:
			s.Events.Eventf(set, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
			errs = append(errs, fmt.Errorf("create a pod of %s/%s on node %s: %w", set.Namespace, set.Name, node, err))
		}
	}
	return errors.Join(errs...)
}

func (s *spreader) report(ctx context.Context, set *appsv1.DaemonSet, status appsv1.DaemonSetStatus) error {
	if equality.Semantic.DeepEqual(status, set.Status) {
		return nil
	}
	next := set.DeepCopy()
	next.Status = status
	_, err := s.Client.AppsV1().DaemonSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// suffix ends a pod's name: one for each node, template and pod that was there before, so that a lagging cache cannot make two pods, and one that
// waits for a pod to go is not misled by its successor.
func suffix(set *appsv1.DaemonSet, hash, node string, before types.UID) string {
	h := fnv.New32a()
	fmt.Fprint(h, set.UID, hash, node, before)
	word := rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 36))
	return word[:min(len(word), 6)]
}
