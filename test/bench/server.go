package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/lab"
)

const (
	podRounds  = 30
	idleWindow = 20 * time.Second
	waitLimit  = time.Minute
)

// benchServer measures a whole node.
func benchServer(ctx context.Context, r *report) (err error) {
	c, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
	client, err := benchStart(ctx, r, c)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.Log())
	}
	if err := benchPods(ctx, r, client); err != nil {
		return err
	}
	return benchIdle(ctx, r, c)
}

// benchStart measures from exec on clean data to API, node and first pod.
func benchStart(ctx context.Context, r *report, c *lab.Cluster) (kubernetes.Interface, error) {
	began := time.Now()
	if err := c.Start(); err != nil {
		return nil, err
	}
	client, err := waitAPI(ctx, c)
	if err != nil {
		return nil, err
	}
	r.add("start, clean data, to API ready", "ms", milli(time.Since(began)), "<= 3000")
	if err := c.WaitReady(ctx); err != nil {
		return nil, err
	}
	r.add("start, clean data, to node Ready", "ms", milli(time.Since(began)), "")
	if _, _, err := onePod(ctx, client, "first"); err != nil {
		return nil, err
	}
	r.add("start, clean data, to a first pod Running", "ms", milli(time.Since(began)), "<= 5000")
	return client, nil
}

func waitAPI(ctx context.Context, c *lab.Cluster) (kubernetes.Interface, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for {
		if config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err == nil {
			config.QPS = -1
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return nil, err
			}
			if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err == nil {
				return client, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the API is not ready: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond): // no kubeconfig yet: nothing to wait on
		}
	}
}

// onePod creates a pod and deletes it; the times are those at which a watcher saw it Running and gone.
func onePod(ctx context.Context, client kubernetes.Interface, name string) (up, down time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	pods := client.CoreV1().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return 0, 0, err
	}
	defer w.Stop()
	zero := int64(0)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &zero,
		Containers: []corev1.Container{{Name: "hello", Image: lab.HelloImage, ImagePullPolicy: corev1.PullNever}}}}
	began := time.Now()
	// The default service account is made a moment after the API is ready.
	for {
		if _, err = pods.Create(ctx, pod, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "serviceaccount") || ctx.Err() != nil {
			break
		}
		time.Sleep(2 * time.Millisecond) // nothing is measured from here but the very first pod
	}
	if err != nil {
		return 0, 0, err
	}
	if err := await(ctx, w, func(e watch.Event) bool { return e.Object.(*corev1.Pod).Status.Phase == corev1.PodRunning }); err != nil {
		return 0, 0, fmt.Errorf("pod %s to Running: %w", name, err)
	}
	up = time.Since(began)
	began = time.Now()
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &zero, PropagationPolicy: nil}); err != nil {
		return 0, 0, err
	}
	err = await(ctx, w, func(e watch.Event) bool { return e.Type == watch.Deleted })
	return up, time.Since(began), err
}

func await(ctx context.Context, w watch.Interface, done func(watch.Event) bool) error {
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				return errors.New("the watch ended")
			}
			if _, ok := e.Object.(*corev1.Pod); ok && done(e) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func benchPods(ctx context.Context, r *report, client kubernetes.Interface) error {
	var ups, downs []time.Duration
	for i := range podRounds {
		up, down, err := onePod(ctx, client, fmt.Sprintf("pod-%d", i))
		if err != nil {
			return err
		}
		ups, downs = append(ups, up), append(downs, down)
	}
	r.add("pod create to Running, p50 of 30", "ms", quantile(ups, 0.5), "<= 300")
	r.add("pod create to Running, p95 of 30", "ms", quantile(ups, 0.95), "<= 500")
	r.add("pod delete to gone, p50 of 30", "ms", quantile(downs, 0.5), "<= 500")
	return nil
}

// benchIdle lets the node rest and measures all of its processes.
func benchIdle(ctx context.Context, r *report, c *lab.Cluster) error {
	keeper, err := c.Keeper()
	if err != nil {
		return err
	}
	own := func(pid int, _ string) bool { return pid == c.Pid() || pid == keeper }
	before, err := measure(own)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idleWindow): // the window is the measurement
	}
	after, err := measure(own)
	if err != nil {
		return err
	}
	r.add("idle memory, all processes", "MB PSS", float64(after.PSS)/1e6, "<= 200")
	r.add("idle CPU, all processes", "% of a core", 100*(after.CPU-before.CPU).Seconds()/idleWindow.Seconds(), "<= 2")
	binary, err := lab.Binary()
	if err != nil {
		return err
	}
	st, err := os.Stat(filepath.Clean(binary))
	if err != nil {
		return err
	}
	r.add("binary", "MB", float64(st.Size())/1e6, "<= 110")
	return nil
}
