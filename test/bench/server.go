package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	waitLimit  = 2 * time.Minute
)

// node is a running server and a client of it.
type node struct {
	*lab.Cluster
	client kubernetes.Interface
	began  time.Time
}

// withNode runs work on a new server, from the moment at which it is started.
func withNode(ctx context.Context, work func(*node) error) (err error) {
	c, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
	n := &node{Cluster: c, began: time.Now()}
	if err = c.Start(); err != nil {
		return err
	}
	if n.client, err = waitAPI(ctx, c); err == nil {
		err = work(n)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.Log())
	}
	return nil
}

// ready waits until the node takes pods.
func (n *node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	w, err := n.client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	return await(ctx, w, func(e watch.Event) bool {
		o, ok := e.Object.(*corev1.Node)
		if !ok {
			return false
		}
		for _, c := range o.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return len(o.Spec.Taints) == 0
			}
		}
		return false
	})
}

// processes are the server and the keeper.
func (n *node) processes() ([]int, error) {
	keeper, err := n.Keeper()
	return []int{n.Pid(), keeper}, err
}

// benchServer measures a whole node: starts, pods one after another, rest.
func benchServer(ctx context.Context, r *report, _ options) error {
	return withNode(ctx, func(n *node) error {
		r.add("start, clean data, to API ready", "ms", milli(time.Since(n.began)), "<= 3000")
		if err := n.ready(ctx); err != nil {
			return err
		}
		r.add("start, clean data, to node Ready", "ms", milli(time.Since(n.began)), "")
		if _, _, err := onePod(ctx, n.client, "first"); err != nil {
			return err
		}
		r.add("start, clean data, to a first pod Running", "ms", milli(time.Since(n.began)), "<= 5000")
		if err := benchPods(ctx, r, n.client); err != nil {
			return err
		}
		if err := benchIdle(ctx, r, n); err != nil {
			return err
		}
		return benchRestart(ctx, r, n)
	})
}

func waitAPI(ctx context.Context, c *lab.Cluster) (kubernetes.Interface, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for {
		if config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err == nil {
			config.QPS = -1
			config.ContentType = "application/vnd.kubernetes.protobuf"
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

// helloPod is a web server that ends at once when it is told to.
func helloPod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "hello"}}, Spec: helloSpec()}
}

func helloSpec() corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "hello", Image: lab.HelloImage, ImagePullPolicy: corev1.PullNever}}}
}

// onePod creates a pod and deletes it; the times are those at which a watcher saw it Running, and gone.
func onePod(ctx context.Context, client kubernetes.Interface, name string) (up, down time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	pods := client.CoreV1().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return 0, 0, err
	}
	defer w.Stop()
	began := time.Now()
	if err := create(ctx, client, helloPod(name)); err != nil {
		return 0, 0, err
	}
	if err := await(ctx, w, func(e watch.Event) bool { return e.Object.(*corev1.Pod).Status.Phase == corev1.PodRunning }); err != nil {
		return 0, 0, fmt.Errorf("pod %s to Running: %w", name, err)
	}
	up = time.Since(began)
	began = time.Now()
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return 0, 0, err
	}
	err = await(ctx, w, func(e watch.Event) bool { return e.Type == watch.Deleted })
	return up, time.Since(began), err
}

// create makes a pod. The default service account is made, and limit ranges are known, a moment after the API is ready.
func create(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) error {
	for {
		_, err := client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		if err == nil || !strings.Contains(err.Error(), "serviceaccount") && !strings.Contains(err.Error(), "limit ranges") || ctx.Err() != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond) // it delays nothing but the very first pod
	}
}

func await(ctx context.Context, w watch.Interface, done func(watch.Event) bool) error {
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				return errors.New("the watch ended")
			}
			if e.Type == watch.Error {
				return fmt.Errorf("watch: %w", apierrors.FromObject(e.Object))
			}
			if done(e) {
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
	r.add("pod delete to gone, p95 of 30", "ms", quantile(downs, 0.95), "")
	return nil
}

// benchIdle lets the node rest and measures all of its processes.
func benchIdle(ctx context.Context, r *report, n *node) error {
	own, err := n.processes()
	if err != nil {
		return err
	}
	if err := settled(ctx, own); err != nil {
		return err
	}
	quiet, err := idle(ctx, own, idleWindow)
	if err != nil {
		return err
	}
	r.add("idle memory, all processes", "MB PSS", float64(measure(own).PSS)/1e6, "<= 200")
	r.add("idle CPU, all processes", "% of a core", quiet/10, "<= 2")
	binary, err := lab.Binary()
	if err != nil {
		return err
	}
	st, err := os.Stat(binary)
	if err != nil {
		return err
	}
	r.add("binary", "MB", float64(st.Size())/1e6, "<= 110")
	return nil
}

// benchRestart measures from exec on a node's data to a new pod.
func benchRestart(ctx context.Context, r *report, n *node) error {
	if err := n.Stop(); err != nil {
		return err
	}
	began := time.Now()
	if err := n.Start(); err != nil {
		return err
	}
	client, err := waitAPI(ctx, n.Cluster)
	if err != nil {
		return err
	}
	r.add("restart with data, to API ready", "ms", milli(time.Since(began)), "")
	if _, _, err := onePod(ctx, client, "after-restart"); err != nil {
		return err
	}
	r.add("restart with data, to a new pod Running", "ms", milli(time.Since(began)), "<= 3000")
	return nil
}
