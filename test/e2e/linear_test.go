package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/lab"
)

// call is one operation on a register: an object whose only content is a value that no other write has. A value therefore
// stands for the version that it was written at, and an update with a precondition is a compare-and-swap of values.
type call struct{ kind, key, prev, value string }

// result is what the client was told. An operation that got no answer may have happened; one that was never asked has not.
type result struct {
	value                 string
	done, failed, unasked bool // none: no answer
}

func (r result) answered() bool { return r.done || r.failed }

// register is an object that may not exist: its value, or "".
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(call).key
			by[key] = append(by[key], o)
		}
		var parts [][]porcupine.Operation
		for _, p := range by {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(call), output.(result)
		possible, next := step(now, in)
		switch {
		case in.kind == "get":
			return now == out.value, now
		case out.done:
			return possible, next
		case out.failed:
			return !possible, now
		}
		return true, next
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// step tells whether a write is possible in a state, and the state after it.
func step(now string, in call) (bool, string) {
	switch {
	case in.kind == "create" && now == "", in.kind == "update" && now == in.prev && now != "":
		return true, in.value
	case in.kind == "delete" && now != "":
		return true, ""
	}
	return false, now
}

// history is what all clients did, on one clock.
type history struct {
	began time.Time
	mu    sync.Mutex
	all   []porcupine.Operation
	acked atomic.Int64
	kills []outage
}

// outage is from before a server is killed until the next one has answered.
type outage struct{ from, until time.Duration }

func (h *history) now() time.Duration { return time.Since(h.began) }

func (h *history) add(client int, in call, from time.Duration, out result) {
	until := h.now()
	switch {
	case out.answered():
		h.acked.Add(1)
	case out.unasked || in.kind == "get":
		return
	default:
		until = math.MaxInt64 // it may happen at any time, also never
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, porcupine.Operation{ClientId: client, Input: in, Call: int64(from), Output: out, Return: int64(until)})
}

// operations is the history in which what got no answer has happened, if at all, before the server that was asked had a successor
// that answers. A few that could happen at any time make a history of this length too long to check.
func (h *history) operations() []porcupine.Operation {
	for i, o := range h.all {
		if o.Output.(result).answered() {
			continue
		}
		for _, k := range h.kills {
			if time.Duration(o.Call) < k.from {
				h.all[i].Return = int64(k.until)
				break
			}
		}
	}
	return h.all
}

// player is one client. Each operation after one without an answer is by a new client: a client does one thing at a time.
func (h *history) player(ctx context.Context, id int, maps typed.ConfigMapInterface, keys int) {
	seen := map[string]*corev1.ConfigMap{}
	client := id
	for i := 0; ctx.Err() == nil; i++ {
		in := call{kind: []string{"get", "get", "create", "update", "update", "update", "delete"}[rand.IntN(7)], key: fmt.Sprintf("r%d", rand.IntN(keys)), value: fmt.Sprintf("%d-%d", id, i)}
		if in.kind == "update" {
			if seen[in.key] == nil {
				in.kind = "get"
			} else {
				in.prev = seen[in.key].Data["v"]
			}
		}
		from := h.now()
		got, out := play(ctx, maps, in, seen[in.key])
		if got != nil {
			seen[in.key] = got
		}
		h.add(client, in, from, out)
		if !out.answered() {
			client += 1000
			select { // the server is away
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

func play(ctx context.Context, maps typed.ConfigMapInterface, in call, seen *corev1.ConfigMap) (got *corev1.ConfigMap, out result) {
	var err error
	switch in.kind {
	case "get":
		got, err = maps.Get(ctx, in.key, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, result{done: true}
		}
	case "create":
		got, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: in.key}, Data: map[string]string{"v": in.value}}, metav1.CreateOptions{})
	case "update":
		changed := seen.DeepCopy()
		changed.Data["v"] = in.value
		got, err = maps.Update(ctx, changed, metav1.UpdateOptions{})
	case "delete":
		err = maps.Delete(ctx, in.key, metav1.DeleteOptions{})
	}
	switch {
	case err == nil:
		if got != nil {
			out.value = got.Data["v"]
		}
		out.done = true
		return got, out
	case apierrors.IsNotFound(err), apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
		return nil, result{failed: true}
	case errors.Is(err, syscall.ECONNREFUSED), apierrors.IsTooManyRequests(err):
		return nil, result{unasked: true}
	}
	return nil, result{}
}

// A server killed under concurrent clients: what they were told, in the order in which they were told it, is what one register per
// object would have answered.
func TestHostile_RA1(t *testing.T) {
	c := ownCluster(t, lab.Options{})
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	const clients, keys, kills, between = 6, 3, 2, 300
	h := &history{began: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var players sync.WaitGroup
	for id := range clients {
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		players.Go(func() { h.player(ctx, id, client.CoreV1().ConfigMaps("default"), keys) })
	}
	for round := range kills + 1 {
		target := h.acked.Load() + between
		eventually(t, "clients are answered", func() string {
			if n := h.acked.Load(); n < target {
				return fmt.Sprintf("%d of %d", n, target)
			}
			return ""
		})
		if round == kills {
			break
		}
		out := outage{from: h.now()}
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		out.until = h.now()
		h.kills = append(h.kills, out)
	}
	cancel()
	players.Wait()
	began := time.Now()
	verdict, info := porcupine.CheckOperationsVerbose(register, h.operations(), 2*time.Minute)
	t.Logf("%d operations, %d answered: %s after %s", len(h.all), h.acked.Load(), verdict, time.Since(began))
	if verdict != porcupine.Ok {
		path := t.ArtifactDir() + "/history.html"
		t.Errorf("the history is not linearizable (%s); see %s (%v)", verdict, path, porcupine.VisualizePath(register, info, path))
	}
}
