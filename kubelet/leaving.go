package kubelet

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/podworker"
	"keelson.dev/keelson/kubelet/shutdown"
)

// leaving is the node's part in the machine's shutdown.
type leaving struct {
	now     atomic.Bool
	changed chan struct{} // capacity 1: a pod may have ended
}

func newLeaving() *leaving { return &leaving{changed: make(chan struct{}, 1)} }

func (l *leaving) is() bool { return l.now.Load() }

// poke says that a pod may have ended, or its end may have been told.
func (l *leaving) poke() {
	select {
	case l.changed <- struct{}{}:
	default: // one is pending: it will see this end too
	}
}

func (k *Kubelet) shutdown() shutdown.Config {
	c := k.cfg.Shutdown
	out := shutdown.Config{Bus: c.Bus, Periods: c.ByPriority, Who: "keelson", Log: k.log}
	if len(out.Periods) == 0 && c.Grace > 0 {
		out.Periods = shutdown.Periods(c.Grace, c.Critical)
	}
	return out
}

// machine is the kubelet as its machine's shutdown sees it. It implements shutdown.Node.
type machine struct{ k *Kubelet }

// Leaving refuses new pods and says so, or no longer.
func (m machine) Leaving(yes bool) {
	m.k.parts.leaving.now.Store(yes)
	m.k.parts.node.SetLeaving(yes)
}

// Pods are those that run or are about to.
func (m machine) Pods() []*corev1.Pod {
	var out []*corev1.Pod
	m.k.parts.workers.Each(func(r podworker.Request, s podworker.State) {
		if s != podworker.Terminated {
			out = append(out, r.Pod)
		}
	})
	return out
}

// End ends a pod as Failed.
func (m machine) End(pod *corev1.Pod, grace time.Duration) {
	m.k.parts.workers.End(pod.UID, plan.Ending{Since: time.Now(), Grace: min(grace, plan.Grace(pod)),
		Reason: "Terminated", Message: "Pod was terminated in response to imminent node shutdown."})
}

// Wait returns when nothing of the pods runs any more and the API knows, or with ctx.
func (m machine) Wait(ctx context.Context, pods []*corev1.Pod) {
	busy := func(p *corev1.Pod) bool {
		s := m.k.parts.workers.Status(p.UID)
		return s != "" && s != podworker.Terminated || !m.k.parts.writer.Flushed(p.UID)
	}
	for slices.ContainsFunc(pods, busy) {
		select {
		case <-m.k.parts.leaving.changed:
		case <-ctx.Done():
			return
		}
	}
}
