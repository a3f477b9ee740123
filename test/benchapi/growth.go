package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/test/lab"
)

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// growth is what objects cost: requests beside them and lists of them, in the peer only with the smaller number, and in our own server
// memory and the next start too.
func growth(ctx context.Context, s settings, c *lab.Cluster, t, peer *target) ([]row, error) {
	k, err := t.client(runtime.ContentTypeProtobuf)
	if err != nil {
		return nil, err
	}
	again := func() (float64, error) {
		if err := c.Stop(); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := c.Start(); err != nil {
			return 0, err
		}
		for {
			if b, err := k.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err == nil && string(b) == "ok" {
				return float64(time.Since(began).Microseconds()) / 1000, c.WaitReady(ctx)
			}
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	var rows []row
	add := func(what, unit string, v float64) { rows = append(rows, row{What: what, Unit: unit, Ours: v}) }
	if peer != nil {
		remove, err := peer.load(ctx, s.objects[0])
		if err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
		defer remove()
	}
	have, used := 0, 0.0
	for _, n := range append([]int{0}, s.objects...) {
		var ns string
		if n > have {
			if ns, _, err = namespace(ctx, k); err != nil { // kept: the instance is removed at the end
				return rows, err
			}
			offset := have
			if err := fill(ctx, k, ns, n-have, func(i int) *corev1.ConfigMap { return object(fmt.Sprintf("m-%d", offset+i)) }); err != nil {
				return rows, err
			}
		}
		ready, err := again()
		if err != nil {
			return rows, err
		}
		add(fmt.Sprintf("restart to /readyz with %d objects", n), "ms", ready)
		began := time.Now()
		list, err := k.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{ResourceVersion: "0", Limit: 0})
		if err != nil {
			return rows, err
		}
		add(fmt.Sprintf("list of %d objects", len(list.Items)), "ms", float64(time.Since(began).Microseconds())/1000)
		mib, err := settled(ctx, c.Pid()) // what is listed is in memory
		if err != nil {
			return rows, err
		}
		add(fmt.Sprintf("memory (PSS) of the server with %d objects", n), "MiB", mib)
		if n > have {
			add(fmt.Sprintf("memory for each object from %d to %d", have, n), "kB", (mib-used)*1024/float64(n-have))
		}
		have, used = n, mib
		for _, op := range operations {
			other := peer
			if n != s.objects[0] {
				other = nil
			}
			r, err := beside(fmt.Sprintf("%s with %d objects elsewhere, protobuf, c=16", op.name, n), "1/s", t, other, func(t *target) (float64, error) {
				return t.rate(ctx, s.length, runtime.ContentTypeProtobuf, 16, op.do)
			})
			if err != nil {
				return rows, err
			}
			rows = append(rows, r)
		}
	}
	r, err := beside(fmt.Sprintf("list of %d pods, p50", pods), "ms", t, peer, func(t *target) (float64, error) { return t.manyPods(ctx) })
	return append(rows, r), err
}

// load makes n objects, which remove has deleted.
func (t *target) load(ctx context.Context, n int) (remove func(), err error) {
	k, err := t.client(runtime.ContentTypeProtobuf)
	if err != nil {
		return nil, err
	}
	ns, remove, err := namespace(ctx, k)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, k, ns, n, func(i int) *corev1.ConfigMap { return object(fmt.Sprintf("m-%d", i)) }); err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

// pods of a large list.
const pods = 10_000

// manyPods is the time of a list of them, the newest as it is by default, the middle of several.
func (t *target) manyPods(ctx context.Context) (float64, error) {
	k, err := t.client(runtime.ContentTypeProtobuf)
	if err != nil {
		return 0, err
	}
	ns, remove, err := namespace(ctx, k)
	if err != nil {
		return 0, err
	}
	defer remove()
	for { // pods are refused until the namespace has its account, which a controller makes
		if _, err = k.CoreV1().ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{}); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	err = spread(pods, func(i int) error {
		_, err := k.CoreV1().Pods(ns).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p-%d", i)},
			Spec: corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "c", Image: "busybox"}}}}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return 0, err
	}
	var took []time.Duration
	for range 5 {
		began := time.Now()
		list, err := k.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return 0, err
		}
		if len(list.Items) != pods {
			return 0, fmt.Errorf("a list of %d pods, want %d", len(list.Items), pods)
		}
		took = append(took, time.Since(began))
	}
	return float64(median(took).Microseconds()) / 1000, nil
}

// settled is the memory of a process once it does not shrink any more: what the start and a list left behind is given back in steps.
func settled(ctx context.Context, pid int) (float64, error) {
	least, same := 0.0, 0
	for range 40 {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(3 * time.Second):
		}
		mib, err := pss(pid)
		if err != nil {
			return 0, err
		}
		if same++; least == 0 || mib < least*0.98 {
			least, same = mib, 0
		}
		if same == 8 {
			break
		}
	}
	return least, nil
}

// pss of a process in MiB.
func pss(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			return float64(kb) / 1024, err
		}
	}
	return 0, fmt.Errorf("no Pss of process %d", pid)
}
