package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// target is a cluster under load. Each client has a connection of its own.
type target struct{ config *rest.Config }

func (t *target) client(contentType string) (*kubernetes.Clientset, error) {
	c := rest.CopyConfig(t.config)
	c.Dial = (&net.Dialer{}).DialContext // or the library would share one connection among all
	c.ContentType = contentType
	if contentType == runtime.ContentTypeProtobuf {
		c.AcceptContentTypes = contentType + "," + runtime.ContentTypeJSON
	}
	return kubernetes.NewForConfig(c)
}

// object is about the size of a small ConfigMap of the field.
func object(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}}, Data: map[string]string{"key": "value", "n": name}}
}

// listed is how many objects a list answers with.
const listed = 500

// operations are timed one after another in this order: each finds what those before have made.
var operations = []struct {
	name string
	do   func(ctx context.Context, k *kubernetes.Clientset, ns, name string, worker, i int) error
}{
	{"create", func(ctx context.Context, k *kubernetes.Clientset, ns, name string, _, _ int) error {
		_, err := k.CoreV1().ConfigMaps(ns).Create(ctx, object(name), metav1.CreateOptions{})
		return err
	}},
	{"get", func(ctx context.Context, k *kubernetes.Clientset, ns, _ string, _, i int) error {
		_, err := k.CoreV1().ConfigMaps(ns).Get(ctx, fmt.Sprintf("base-%d", i%listed), metav1.GetOptions{})
		return err
	}},
	{"list of 500", func(ctx context.Context, k *kubernetes.Clientset, ns, _ string, _, _ int) error {
		_, err := k.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{LabelSelector: "base=yes", ResourceVersion: "0"})
		return err
	}},
	{"patch", func(ctx context.Context, k *kubernetes.Clientset, ns, _ string, worker, i int) error {
		patch := fmt.Appendf(nil, `{"data":{"n":"%d-%d"}}`, worker, i)
		_, err := k.CoreV1().ConfigMaps(ns).Patch(ctx, fmt.Sprintf("base-%d", worker), types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}},
}

// throughput is the table of requests per second.
func throughput(ctx context.Context, s settings, ours, peer *target) ([]row, error) {
	var rows []row
	for _, content := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		for _, clients := range []int{1, 16, 64} {
			for _, op := range operations {
				what := fmt.Sprintf("%s, %s, c=%d", op.name, map[string]string{runtime.ContentTypeJSON: "JSON", runtime.ContentTypeProtobuf: "protobuf"}[content], clients)
				r, err := beside(what, "1/s", ours, peer, func(t *target) (float64, error) { return t.rate(ctx, s.length, content, clients, op.do) })
				if err != nil {
					return nil, err
				}
				rows = append(rows, r)
			}
		}
	}
	return rows, nil
}

// beside measures ours and then the peer, if there is one.
func beside(what, unit string, ours, peer *target, measure func(*target) (float64, error)) (r row, err error) {
	r = row{What: what, Unit: unit}
	if r.Ours, err = measure(ours); err != nil {
		return r, fmt.Errorf("%s: %w", what, err)
	}
	if peer == nil {
		return r, nil
	}
	v, err := measure(peer)
	if err != nil {
		return r, fmt.Errorf("peer: %s: %w", what, err)
	}
	r.Peer = &v
	return r, nil
}

// rate runs clients for a while in a namespace of their own and counts.
func (t *target) rate(ctx context.Context, length time.Duration, content string, clients int,
	do func(context.Context, *kubernetes.Clientset, string, string, int, int) error) (float64, error) {
	admin, err := t.client(runtime.ContentTypeProtobuf)
	if err != nil {
		return 0, err
	}
	ns, remove, err := namespace(ctx, admin)
	if err != nil {
		return 0, err
	}
	defer remove()
	base := func(i int) *corev1.ConfigMap {
		o := object(fmt.Sprintf("base-%d", i))
		o.Labels["base"] = "yes"
		return o
	}
	if err := fill(ctx, admin, ns, listed, base); err != nil {
		return 0, err
	}
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	workers := make([]*kubernetes.Clientset, clients)
	for w := range workers {
		if workers[w], err = t.client(content); err != nil {
			return 0, err
		}
		if err := do(ctx, workers[w], ns, fmt.Sprintf("warm-%d", w), w, 0); err != nil { // the connection is made before the clock runs
			return 0, err
		}
	}
	began := time.Now()
	for w, k := range workers {
		group.Go(func() {
			for i := 1; time.Since(began) < length; i++ {
				if err := do(ctx, k, ns, fmt.Sprintf("o-%d-%d", w, i), w, i); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(count.Load()) / time.Since(began).Seconds(), nil
}

// namespace makes one; remove has it deleted and waits for nothing.
func namespace(ctx context.Context, k *kubernetes.Clientset) (name string, remove func(), err error) {
	n, err := k.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}, metav1.CreateOptions{})
	if err != nil {
		return "", nil, err
	}
	return n.Name, func() {
		ctx := context.WithoutCancel(ctx)
		_ = k.CoreV1().ConfigMaps(n.Name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		_ = k.CoreV1().Namespaces().Delete(ctx, n.Name, metav1.DeleteOptions{})
	}, nil
}

// fill makes n objects.
func fill(ctx context.Context, k *kubernetes.Clientset, ns string, n int, make func(int) *corev1.ConfigMap) error {
	return spread(n, func(i int) error {
		_, err := k.CoreV1().ConfigMaps(ns).Create(ctx, make(i), metav1.CreateOptions{})
		return err
	})
}

// spread has 32 workers do n things.
func spread(n int, do func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// changes of the fan-out.
const changes = 50

// fanOut is the time from a change to its arrival at the last of many watchers, the middle of several.
func fanOut(ctx context.Context, ours, peer *target) ([]row, error) {
	var rows []row
	for _, watchers := range []int{200, 1000} {
		r, err := beside(fmt.Sprintf("change to the last of %d watchers, p50", watchers), "ms", ours, peer, func(t *target) (float64, error) { return t.arrival(ctx, watchers) })
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (t *target) arrival(ctx context.Context, watchers int) (float64, error) {
	k, err := t.client(runtime.ContentTypeProtobuf)
	if err != nil {
		return 0, err
	}
	ns, remove, err := namespace(ctx, k)
	if err != nil {
		return 0, err
	}
	defer remove()
	maps := k.CoreV1().ConfigMaps(ns)
	if _, err := maps.Create(ctx, object("o"), metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	arrived := make(chan struct{}, watchers)
	for range watchers {
		w, err := maps.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=o"})
		if err != nil {
			return 0, err
		}
		defer w.Stop()
		if first := <-w.ResultChan(); first.Type != watch.Added {
			return 0, fmt.Errorf("a watch began with %s", first.Type)
		}
		go func() { // ends with Stop
			for range w.ResultChan() {
				arrived <- struct{}{}
			}
		}()
	}
	var took []time.Duration
	for i := range changes {
		began := time.Now()
		if _, err := maps.Patch(ctx, "o", types.MergePatchType, fmt.Appendf(nil, `{"data":{"n":"%d"}}`, i), metav1.PatchOptions{}); err != nil {
			return 0, err
		}
		for range watchers {
			select {
			case <-arrived:
			case <-time.After(time.Minute):
				return 0, fmt.Errorf("change %d did not reach every watcher in a minute", i)
			}
		}
		took = append(took, time.Since(began))
	}
	return float64(median(took).Microseconds()) / 1000, nil
}
