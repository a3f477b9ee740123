package controller

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

// Deps are what a controller is made from; all are required.
type Deps struct {
	// Client writes under the controller's own identity.
	Client kubernetes.Interface
	// Informers are shared by all controllers and started by their owner after every New.
	Informers informers.SharedInformerFactory
	// Events records events under the controller's name; they appear in `kubectl describe`.
	Events Recorder
	Log    *slog.Logger
}

// Recorder is the part of client-go's recorder that controllers use.
type Recorder interface {
	Eventf(object runtime.Object, eventtype, reason, messageFmt string, args ...any)
}

// Reconcile brings one key's world towards what is wanted. A positive duration asks for another look after it even if
// nothing changes. An error is retried with back-off and logged, not each time; a conflict is retried quietly: the store moved on.
type Reconcile func(ctx context.Context, key string) (again time.Duration, err error)

// Loop feeds keys to a Reconcile. Keys added while they are being worked on are worked on once more afterwards.
type Loop struct {
	name      string
	log       *slog.Logger
	reconcile Reconcile
	workers   int
	queue     workqueue.TypedRateLimitingInterface[string]
	synced    []cache.InformerSynced
	own       []cache.SharedIndexInformer
	group     sync.WaitGroup // workers and what they started
}

// NewLoop returns a loop with the given number of workers. The queue's names appear in the workqueue_* metrics.
func NewLoop(name string, log *slog.Logger, workers int, reconcile Reconcile) *Loop {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, 5*time.Minute)
	return &Loop{name: name, log: log.With("controller", name), reconcile: reconcile, workers: workers,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{Name: name, Clock: calmClock{}})}
}

// gaugePeriod is how old a queue's workqueue_unfinished_work_seconds may be; scrapers do not look more often.
const gaugePeriod = 15 * time.Second

// calmClock is the real one with slow tickers. client-go works that gauge out twice a second for each queue, and with tens of queues
// this was half of the times that an idle node woke up. Its other ticker only insures against a lost timer.
type calmClock struct{ clock.RealClock }

func (c calmClock) NewTicker(d time.Duration) clock.Ticker {
	return c.RealClock.NewTicker(max(d, gaugePeriod))
}

// Name is the controller's name.
func (l *Loop) Name() string { return l.name }

// Add asks for a look at a key.
func (l *Loop) Add(key string) { l.queue.Add(key) }

// AddAfter asks for a look at a key after d.
func (l *Loop) AddAfter(key string, d time.Duration) { l.queue.AddAfter(key, d) }

// Go runs f, which must end with the context of the reconcile that calls Go; Run waits for it.
func (l *Loop) Go(f func()) { l.group.Go(f) }

// Watch calls keys for every object that an informer reports as added, changed or deleted, and adds what it returns.
// old is the zero T unless the object changed.
func Watch[T any](l *Loop, informer cache.SharedIndexInformer, keys func(obj, old T) []string) error {
	var none T
	add := func(obj any, old T) {
		if tomb, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = tomb.Obj
		}
		if typed, ok := obj.(T); ok {
			for _, key := range keys(typed, old) {
				l.Add(key)
			}
		}
	}
	reg, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { add(obj, none) },
		DeleteFunc: func(obj any) { add(obj, none) },
		UpdateFunc: func(old, obj any) {
			before, _ := old.(T)
			add(obj, before)
		},
	})
	if err == nil {
		l.synced = append(l.synced, reg.HasSynced)
	}
	return err
}

// Needs makes Run wait until an informer that the controller only reads is filled.
func (l *Loop) Needs(informers ...cache.SharedIndexInformer) {
	for _, i := range informers {
		l.synced = append(l.synced, i.HasSynced)
	}
}

// Own makes Run run an informer that no other controller reads.
func (l *Loop) Own(informer cache.SharedIndexInformer) { l.own = append(l.own, informer) }

// Run works until ctx ends, then waits for the workers. The server answers already.
func (l *Loop) Run(ctx context.Context) error {
	defer l.queue.ShutDown()
	for _, informer := range l.own {
		l.group.Go(func() { informer.RunWithContext(ctx) })
	}
	if !cache.WaitForCacheSync(ctx.Done(), l.synced...) {
		l.group.Wait()
		return nil
	}
	for range l.workers {
		l.group.Go(func() {
			for l.one(ctx) {
			}
		})
	}
	<-ctx.Done()
	l.queue.ShutDown()
	l.group.Wait()
	return nil
}

func (l *Loop) one(ctx context.Context) bool {
	key, stop := l.queue.Get()
	if stop {
		return false
	}
	defer l.queue.Done(key)
	again, err := l.reconcile(ctx, key)
	switch {
	case err == nil:
		l.queue.Forget(key)
		if again > 0 {
			l.queue.AddAfter(key, again)
		}
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
	default:
		if tries := l.queue.NumRequeues(key); !outrun(err, tries) {
			l.log.Log(ctx, level(tries), "reconcile failed, will retry", "key", key, "err", err, "tries", tries)
		}
		l.queue.AddRateLimited(key)
	}
	return true
}

// outrun reports whether the world was faster than the informers, which are about to show it: somebody else wrote, or the object or
// its namespace is going.
func outrun(err error, tries int) bool {
	return apierrors.IsConflict(err) || tries == 0 && (apierrors.IsNotFound(err) || Terminating(err))
}

// level is how loudly a failure is told after so many tries before it: the first, and each eighth. What lasts, such as a quota
// that is used up, is tried again for hours, and events tell it to whom it concerns.
func level(tries int) slog.Level {
	if tries%8 == 0 {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Get reads one object of an informer's store by key; nil if it is not there. The caller must not change it.
func Get[T any](informer cache.SharedIndexInformer, key string) *T {
	obj, exists, err := informer.GetIndexer().GetByKey(key)
	if err != nil || !exists {
		return nil
	}
	typed, _ := obj.(*T)
	return typed
}

// Terminating reports whether the API refused because the namespace is going away: nothing more is to be made there.
func Terminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}
