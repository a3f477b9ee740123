package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
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
	s.cluster.SetNode(n)
	s.queue.changed(time.Now())
}

func (s *Scheduler) nodeGone(n *corev1.Node) { s.cluster.RemoveNode(n.Name) }

func (s *Scheduler) namespaceChanged(ns *corev1.Namespace) { s.cluster.Namespaces[ns.Name] = ns.Labels }

func (s *Scheduler) podChanged(pod *corev1.Pod) {
	switch {
	case pod.Spec.NodeName != "":
		s.queue.remove(pod.UID)
		delete(s.assumed, pod.UID)
		freed := ended(pod)
		s.cluster.SetPod(pod)
		if freed || len(pod.Labels) > 0 {
			s.queue.changed(time.Now()) // room, or a neighbour that an affinity waits for
		}
	case s.assumed[pod.UID] != nil:
		// Our binding is on its way; the watch will bring the bound pod.
	case pod.Spec.SchedulerName != s.cfg.Name || pod.DeletionTimestamp != nil || ended(pod):
		s.queue.remove(pod.UID)
	case len(pod.Spec.SchedulingGates) > 0:
		s.queue.remove(pod.UID)
	default:
		s.queue.put(pod, time.Now())
	}
}

func (s *Scheduler) podGone(pod *corev1.Pod) {
	s.queue.remove(pod.UID)
	delete(s.assumed, pod.UID)
	s.cluster.RemovePod(pod.UID)
	s.queue.changed(time.Now())
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
	s.cluster.SetPod(bound)
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
	s.queue.refuse(pod.UID, true, time.Now())
}

func (s *Scheduler) refuse(ctx context.Context, p *Pod, d Decision) {
	s.queue.refuse(p.UID, false, time.Now())
	plan := Preempt(s.cluster, p, d, s.disruptable)
	message := d.Message()
	if plan == nil && d.Nodes > 0 {
		message += " No pod of lower priority could make room."
	}
	s.workers.Go(func() { s.tell(ctx, p.Pod, message, plan) })
}

// disruptable reports whether every budget that selects the pod allows one more disruption.
func (s *Scheduler) disruptable(pod *corev1.Pod) bool {
	for _, obj := range s.budgets.List() {
		pdb := obj.(*policyv1.PodDisruptionBudget)
		if pdb.Namespace == pod.Namespace && labelsMatch(pdb.Spec.Selector, pod.Labels) && pdb.Status.DisruptionsAllowed <= 0 {
			return false
		}
	}
	return true
}
