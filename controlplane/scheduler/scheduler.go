package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
)

// Config of a scheduler.
type Config struct {
	// Name is matched with pods' spec.schedulerName; default "default-scheduler".
	Name string
	Log  *slog.Logger
}

// Deps are what a scheduler needs; all are required.
type Deps struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory // started by the owner, after New
	Events    events.EventRecorder
}

// Scheduler binds pods to nodes. Create it with New, then start the informers, then Run.
type Scheduler struct {
	cfg  Config
	deps Deps

	// inbox carries changes to the goroutine that owns everything below.
	inbox   chan func()
	done    chan struct{}
	synced  []cache.InformerSynced
	budgets cache.Indexer
	workers sync.WaitGroup

	cluster *Cluster
	queue   *queue
	assumed map[types.UID]*corev1.Pod // bound by us, not yet seen bound by the watch
}

// New registers the scheduler's handlers with the informers.
func New(cfg Config, deps Deps) (*Scheduler, error) {
	if cfg.Name == "" {
		cfg.Name = corev1.DefaultSchedulerName
	}
	if cfg.Log == nil || deps.Client == nil || deps.Informers == nil || deps.Events == nil {
		return nil, errors.New("scheduler: Log, Client, Informers and Events are required")
	}
	s := &Scheduler{cfg: cfg, deps: deps, inbox: make(chan func(), 128), done: make(chan struct{}),
		cluster: NewCluster(), queue: newQueue(), assumed: map[types.UID]*corev1.Pod{}}
	core := deps.Informers.Core().V1()
	pdbs := deps.Informers.Policy().V1().PodDisruptionBudgets().Informer()
	s.budgets, s.synced = pdbs.GetIndexer(), []cache.InformerSynced{pdbs.HasSynced}
	s.cluster.Volumes = newClaims(deps.Informers, s)
	return s, errors.Join(
		watch(s, core.Nodes().Informer(), s.nodeChanged, s.nodeGone),
		watch(s, core.Pods().Informer(), s.podChanged, s.podGone),
		watch(s, core.Namespaces().Informer(), s.namespaceChanged, func(*corev1.Namespace) {}),
	)
}

// watch delivers an informer's changes to the owner's goroutine, typed.
func watch[T any](s *Scheduler, informer cache.SharedIndexInformer, changed, gone func(T)) error {
	deliver := func(obj any, f func(T)) {
		if tomb, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = tomb.Obj
		}
		if typed, ok := obj.(T); ok {
			s.post(func() { f(typed) })
		}
	}
	reg, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { deliver(obj, changed) },
		UpdateFunc: func(_, obj any) { deliver(obj, changed) },
		DeleteFunc: func(obj any) { deliver(obj, gone) },
	})
	if err == nil {
		s.synced = append(s.synced, reg.HasSynced)
	}
	return err
}

// post hands f to the owner's goroutine; after Run has ended it does nothing.
func (s *Scheduler) post(f func()) {
	select {
	case s.inbox <- f:
	case <-s.done:
	}
}

// Run schedules until ctx ends and waits for the bindings under way.
func (s *Scheduler) Run(ctx context.Context) error {
	defer s.workers.Wait()
	defer close(s.done)
	ready := make(chan struct{})
	s.workers.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), s.synced...) {
			close(ready)
		}
	})
	synced, timer := false, time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ready:
			ready, synced = nil, true
		case f := <-s.inbox:
			f()
		case <-timer.C:
		}
		if !synced || !s.drainInbox(ctx) {
			continue // decide only on a whole picture
		}
		now := time.Now()
		next := s.queue.due(now)
		for pod := s.queue.next(); pod != nil; pod = s.queue.next() {
			s.schedule(ctx, pod)
		}
		timer.Stop()
		if next = s.queue.due(now); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// drainInbox applies what has arrived meanwhile, so that a decision is made on the newest picture.
func (s *Scheduler) drainInbox(ctx context.Context) bool {
	for ctx.Err() == nil {
		select {
		case f := <-s.inbox:
			f()
		default:
			return true
		}
	}
	return false
}

func (s *Scheduler) nodeChanged(n *corev1.Node) {
	old := s.cluster.Nodes[n.Name]
	same := old != nil && maps.Equal(old.Labels, n.Labels) && old.Spec.Unschedulable == n.Spec.Unschedulable &&
		equality.Semantic.DeepEqual(old.Spec.Taints, n.Spec.Taints) && equality.Semantic.DeepEqual(old.Status.Allocatable, n.Status.Allocatable) &&
		slices.Equal(old.Status.DeclaredFeatures, n.Status.DeclaredFeatures)
	s.cluster.SetNode(n)
	if !same { // a heartbeat helps nobody
		s.queue.changed(NodesChanged, time.Now())
	}
}

func (s *Scheduler) nodeGone(n *corev1.Node) {
	s.cluster.RemoveNode(n.Name)
	s.queue.changed(NodesChanged, time.Now()) // pods are spread over what is left
}

func (s *Scheduler) namespaceChanged(ns *corev1.Namespace) {
	old, known := s.cluster.Namespaces[ns.Name]
	s.cluster.Namespaces[ns.Name] = ns.Labels
	if !known || !maps.Equal(old, ns.Labels) {
		s.queue.changed(PodsChanged, time.Now())
	}
}

func (s *Scheduler) podChanged(pod *corev1.Pod) {
	switch {
	case pod.Spec.NodeName != "":
		old := s.cluster.pods[pod.UID]
		if s.assumed[pod.UID] != nil {
			old = nil // its coming is news to all others
		}
		s.queue.remove(pod.UID)
		delete(s.assumed, pod.UID)
		s.cluster.SetPod(pod)
		s.queue.changed(news(old, s.cluster.pods[pod.UID]), time.Now())
	case s.assumed[pod.UID] != nil:
		// Our binding is on its way; the watch will bring the bound pod.
	case pod.Spec.SchedulerName != s.cfg.Name || pod.DeletionTimestamp != nil || ended(pod):
		s.queue.remove(pod.UID)
	case len(pod.Spec.SchedulingGates) > 0:
		s.queue.remove(pod.UID)
	default:
		s.cluster.Nominate(pod)
		s.queue.put(pod, time.Now())
	}
}

// news is what a bound pod's change means to others; nil is a pod that is not there or has ended.
func news(old, now *Pod) Change {
	switch {
	case old == nil && now == nil:
		return 0
	case now == nil:
		return RoomChanged | PodsChanged
	case old == nil:
		return PodsChanged
	}
	var out Change
	if !maps.Equal(old.Labels, now.Labels) || (old.DeletionTimestamp == nil) != (now.DeletionTimestamp == nil) {
		out |= PodsChanged
	}
	if !maps.Equal(old.Requests, now.Requests) {
		out |= RoomChanged
	}
	return out
}

func (s *Scheduler) podGone(pod *corev1.Pod) {
	s.queue.remove(pod.UID)
	delete(s.assumed, pod.UID)
	bound := s.cluster.pods[pod.UID] != nil
	promised := s.cluster.nominees[pod.UID] != nil
	s.cluster.RemovePod(pod.UID)
	if bound || promised {
		s.queue.changed(RoomChanged|PodsChanged, time.Now())
	}
}

// schedule decides one pod and starts the binding, or records why it must wait.
func (s *Scheduler) schedule(ctx context.Context, pod *corev1.Pod) {
	p := NewPod(pod)
	d := Decide(s.cluster, p)
	if d.Node == "" {
		s.refuse(ctx, p, d)
		return
	}
	bound := pod.DeepCopy()
	bound.Spec.NodeName = d.Node
	s.assumed[pod.UID] = bound
	promised := s.cluster.nominees[pod.UID] != nil
	s.cluster.SetPod(bound)
	if promised {
		s.queue.changed(RoomChanged, time.Now()) // it may have gone elsewhere
	}
	s.workers.Go(func() {
		err := s.bind(ctx, pod, d.Node)
		s.post(func() { s.settled(pod, err) })
	})
}

// settled takes back an assumption that the API refused; the pod is tried again after a back-off.
func (s *Scheduler) settled(pod *corev1.Pod, err error) {
	if err == nil {
		return
	}
	s.cfg.Log.Warn("binding failed", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	if _, still := s.assumed[pod.UID]; !still {
		return
	}
	delete(s.assumed, pod.UID)
	s.cluster.RemovePod(pod.UID)
	if gone(err) {
		s.queue.remove(pod.UID)
		return
	}
	s.queue.retry(pod.UID, time.Now())
	s.queue.changed(RoomChanged|PodsChanged, time.Now())
}

// refuse parks a pod, and asks pods of lower priority to go if that helps it.
func (s *Scheduler) refuse(ctx context.Context, p *Pod, d Decision) {
	s.queue.park(p.UID, d.Cures(), time.Now())
	plan, preemption := Preempt(s.cluster, p, d, listed[policyv1.PodDisruptionBudget](s.budgets))
	message := strings.TrimSpace(d.Message() + " " + preemption)
	if plan != nil {
		promised := p.Pod.DeepCopy()
		promised.Status.NominatedNodeName = plan.Node
		s.cluster.Nominate(promised)
		for _, v := range plan.Victims {
			s.cluster.leaving[v.UID] = true
		}
	}
	s.workers.Go(func() { s.tell(ctx, p.Pod, message, plan) })
}

// stayed takes back that a pod was asked to go: the API refused.
func (s *Scheduler) stayed(victim *corev1.Pod) {
	delete(s.cluster.leaving, victim.UID)
	s.queue.changed(RoomChanged, time.Now())
}
