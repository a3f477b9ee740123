package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"keelson.dev/keelson/controlplane/resource/metrics"
)

const (
	// looksFresh is how long one look at a kubelet serves everybody who asks.
	looksFresh = 5 * time.Second
	// looksStale is when a look is too old to measure from: the mean over it would say little about now.
	looksStale = time.Minute
	// firstWindow is what is measured over when there is no look to measure from.
	firstWindow = time.Second
	lookTimeout = 10 * time.Second
	// summaryLimit in bytes bounds what a kubelet can make this process read.
	summaryLimit = 32 << 20
)

// looks are the latest looks at kubelets. Nobody looks unless somebody asks.
type looks struct {
	kubelets *kubelets
	mu       sync.Mutex
	nodes    map[string]*look // guarded by mu
}

// look is one node's latest.
type look struct {
	asked time.Time  // guarded by looks.mu
	mu    sync.Mutex // held while looking: who comes meanwhile has the same answer
	pair  metrics.Pair
}

func newLooks(k *kubelets) *looks { return &looks{kubelets: k, nodes: map[string]*look{}} }

// all looks at nodes side by side.
func (l *looks) all(ctx context.Context, nodes []string) (map[string]metrics.Pair, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	out := make(map[string]metrics.Pair, len(nodes))
	var errs []error
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, name := range nodes {
		one := l.of(name, time.Now())
		wait.Go(func() {
			pair, err := one.fresh(ctx, func() (metrics.Sample, error) { return l.kubelets.sample(ctx, name) })
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("node %s: %w", name, err))
				return
			}
			out[name] = pair
		})
	}
	wait.Wait()
	return out, errors.Join(errs...)
}

// of returns a node's look and forgets those that nobody wants any more.
func (l *looks) of(node string, now time.Time) *look {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, k := range l.nodes {
		if now.Sub(k.asked) > looksStale {
			delete(l.nodes, name)
		}
	}
	if l.nodes[node] == nil {
		l.nodes[node] = &look{}
	}
	l.nodes[node].asked = now
	return l.nodes[node]
}

func (k *look) fresh(ctx context.Context, sample func() (metrics.Sample, error)) (metrics.Pair, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := time.Since(k.pair.Now.At)
	if age < looksFresh {
		return k.pair, nil
	}
	old := k.pair.Now
	if age > looksStale {
		var err error
		if old, err = sample(); err != nil {
			return metrics.Pair{}, err
		}
		select {
		case <-time.After(firstWindow):
		case <-ctx.Done():
			return metrics.Pair{}, ctx.Err()
		}
	}
	now, err := sample()
	if err != nil {
		return metrics.Pair{}, err
	}
	k.pair = metrics.Pair{Old: old, Now: now}
	return k.pair, nil
}

// sample reads a kubelet's counters.
func (k *kubelets) sample(ctx context.Context, node string) (metrics.Sample, error) {
	u, err := k.at(ctx, node)
	if err != nil {
		return metrics.Sample{}, err
	}
	u.Path, u.RawQuery = "/stats/summary", ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return metrics.Sample{}, err
	}
	res, err := k.kubelet.RoundTrip(req)
	if err != nil {
		return metrics.Sample{}, fmt.Errorf("read statistics: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return metrics.Sample{}, fmt.Errorf("read statistics: the kubelet answers %s", res.Status)
	}
	var sum stats.Summary
	if err := json.NewDecoder(io.LimitReader(res.Body, summaryLimit)).Decode(&sum); err != nil {
		return metrics.Sample{}, fmt.Errorf("read statistics: %w", err)
	}
	return metrics.Read(time.Now(), &sum), nil
}
