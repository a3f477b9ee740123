package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// copier is a controller as people write them on client-go: it keeps a copy (name-copy) of each ConfigMap labelled "copy".
type copier struct {
	client  *kubernetes.Clientset
	ns      string
	maps    cache.SharedIndexInformer
	queue   workqueue.TypedRateLimitingInterface[string]
	resyncs atomic.Int64 // updates that changed nothing
}

func newCopier(t *testing.T, client *kubernetes.Clientset, ns string) *copier {
	t.Helper()
	c := &copier{client: client, ns: ns, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, time.Second))}
	factory := informers.NewSharedInformerFactoryWithOptions(client, time.Second, informers.WithNamespace(ns))
	c.maps = factory.Core().V1().ConfigMaps().Informer()
	add := func(obj any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
			c.queue.Add(strings.TrimSuffix(key, "-copy"))
		}
	}
	_, err := c.maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, DeleteFunc: add, UpdateFunc: func(old, obj any) {
		if old.(*corev1.ConfigMap).ResourceVersion == obj.(*corev1.ConfigMap).ResourceVersion {
			c.resyncs.Add(1)
		}
		add(obj)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run works until ctx ends.
func (c *copier) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { c.maps.Run(ctx.Done()) })
	if cache.WaitForCacheSync(ctx.Done(), c.maps.HasSynced) {
		for range 4 {
			wg.Go(func() {
				for {
					key, stop := c.queue.Get()
					if stop {
						return
					}
					if err := c.reconcile(ctx, key); err != nil {
						c.queue.AddRateLimited(key)
					} else {
						c.queue.Forget(key)
					}
					c.queue.Done(key)
				}
			})
		}
	}
	<-ctx.Done()
	c.queue.ShutDown()
	wg.Wait()
}

func (c *copier) reconcile(ctx context.Context, key string) error {
	obj, exists, err := c.maps.GetIndexer().GetByKey(key)
	if err != nil {
		return err
	}
	_, name, _ := cache.SplitMetaNamespaceKey(key)
	api := c.client.CoreV1().ConfigMaps(c.ns)
	have, there, err := c.maps.GetIndexer().GetByKey(key + "-copy")
	if err != nil {
		return err
	}
	if !exists || obj.(*corev1.ConfigMap).Labels["copy"] == "" {
		if there {
			err = api.Delete(ctx, name+"-copy", metav1.DeleteOptions{})
		}
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return err
	}
	want := named(name+"-copy", nil)
	want.Data = obj.(*corev1.ConfigMap).Data
	if !there {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
		return err // that it exists already will be seen, and looked at again
	}
	if fmt.Sprint(have.(*corev1.ConfigMap).Data) == fmt.Sprint(want.Data) {
		return nil
	}
	want.ResourceVersion = have.(*corev1.ConfigMap).ResourceVersion
	_, err = api.Update(ctx, want, metav1.UpdateOptions{})
	return err
}

// settled says what is wrong with the copies, "" if they are as the originals.
func settled(ctx context.Context, client kubernetes.Interface, ns string) string {
	list, err := client.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	data := map[string]string{}
	for _, m := range list.Items {
		data[m.Name] = fmt.Sprint(m.Data)
	}
	for _, m := range list.Items {
		if m.Labels["copy"] != "" && data[m.Name] != data[m.Name+"-copy"] {
			return fmt.Sprintf("%s is %s, its copy %s", m.Name, data[m.Name], data[m.Name+"-copy"])
		}
		if original, ok := strings.CutSuffix(m.Name, "-copy"); ok && data[original] == "" {
			return m.Name + " has no original"
		}
	}
	return ""
}

// TestController: a controller on client-go of two candidates, one of which leads, under load; the server is killed in the middle. Nothing
// is lost, the watches go on or begin anew (410), a resync changes nothing, and there is never more than one leader.
func TestController(t *testing.T) {
	c := labtest.Own(t, lab.Options{})
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	a := adminOf(t, config)
	ns := a.namespace(t, "controller")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	work := newCopier(t, a.Clientset, ns)
	wg.Go(func() { work.run(ctx) })
	leads := newCandidates(t, a.Clientset, ns)
	for i := range 2 {
		wg.Go(func() { leads.stand(ctx, fmt.Sprint("candidate-", i)) })
	}

	const originals = 40
	write := func(round int) {
		for i := range originals {
			m := named(fmt.Sprint("m", i), map[string]string{"copy": "yes"})
			m.Data = map[string]string{"round": fmt.Sprint(round)}
			labtest.Eventually(t, "a write is taken", func() string {
				_, err := a.CoreV1().ConfigMaps(ns).Update(ctx, m, metav1.UpdateOptions{})
				if apierrors.IsNotFound(err) {
					_, err = a.create(t, ns, m)
				}
				if err != nil {
					return err.Error()
				}
				return ""
			})
		}
	}
	write(1)
	labtest.Eventually(t, "copies before", func() string { return settled(ctx, a, ns) })
	labtest.Eventually(t, "a leader", func() string { return leads.missing(0) })
	killed := make(chan error, 1)
	go func() { killed <- errors.Join(c.Kill(), c.Start()) }() // in the middle of what is written now
	write(2)
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(3)
	if err := a.CoreV1().ConfigMaps(ns).Delete(ctx, "m0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "copies after", func() string { return settled(ctx, a, ns) })
	before := leads.renewals(t, a, ns)
	labtest.Eventually(t, "somebody still leads", func() string {
		if now := leads.renewals(t, a, ns); now == before {
			return "the lease is not renewed since " + now
		}
		return ""
	})
	labtest.Eventually(t, "resyncs", func() string {
		if n := work.resyncs.Load(); n < originals {
			return fmt.Sprint(n, " so far")
		}
		return ""
	})
	if n := leads.most.Load(); n != 1 {
		t.Errorf("%d led at once", n)
	}
}

// candidates elect a leader among themselves by a Lease.
type candidates struct {
	lock         func(id string) resourcelock.Interface
	leading, all atomic.Int64 // now, and ever
	most         atomic.Int64
}

func newCandidates(t *testing.T, client *kubernetes.Clientset, ns string) *candidates {
	t.Helper()
	return &candidates{lock: func(id string) resourcelock.Interface {
		l, err := resourcelock.New(resourcelock.LeasesResourceLock, ns, "leader", client.CoreV1(), client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: id})
		if err != nil {
			t.Error(err)
		}
		return l
	}}
}

// stand is a candidate until ctx ends; who loses stands again.
func (c *candidates) stand(ctx context.Context, id string) {
	for ctx.Err() == nil {
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: c.lock(id), LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 500 * time.Millisecond, Name: id,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					c.all.Add(1)
					for n := c.leading.Add(1); n > c.most.Load(); {
						c.most.Store(n)
					}
					<-ctx.Done()
					c.leading.Add(-1)
				},
				OnStoppedLeading: func() {},
			},
		})
	}
}

func (c *candidates) missing(than int64) string {
	if c.all.Load() > than {
		return ""
	}
	return "nobody leads"
}

// renewals is when the lease was renewed last.
func (c *candidates) renewals(t *testing.T, a *admin, ns string) string {
	l, err := a.CoordinationV1().Leases(ns).Get(t.Context(), "leader", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return l.Spec.RenewTime.String()
}
