package probe

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/observe"
)

// worker runs one probe of one container instance.
type worker struct {
	m       *Manager
	pod     *corev1.Pod
	spec    *corev1.Container
	con     observe.Container
	ips     []string
	kind    kind
	probe   *corev1.Probe
	subject *subject
}

// result of one probing.
type result int

const (
	success result = iota
	failure
	unclear // the question could not be put: it counts for nothing
)

// run probes until ctx ends or the probe's work is done (startup passed, container condemned).
func (w *worker) run(ctx context.Context) {
	due := w.con.StartedAt.Add(time.Duration(w.probe.InitialDelaySeconds) * time.Second)
	if w.kind != startup {
		select {
		case <-ctx.Done():
			return
		case <-w.subject.begun:
		}
	}
	period := seconds(w.probe.PeriodSeconds, 10)
	timer := time.NewTimer(max(time.Until(due), 0))
	defer timer.Stop()
	streak, last := int32(0), unclear
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begin := time.Now()
		now, say := w.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		w.count(now)
		if now != unclear {
			if now == last {
				streak++
			} else {
				streak, last = 1, now
			}
			if w.draw(now, streak, say) {
				return
			}
		}
		timer.Reset(max(period-time.Since(begin), 0))
	}
}

// draw draws the conclusion of the streak-th equal result in a row. done ends the probe.
func (w *worker) draw(r result, streak int32, say string) (done bool) {
	if r == failure {
		w.m.cfg.Events.ContainerEvent(w.pod, w.spec.Name, corev1.EventTypeWarning, "Unhealthy",
			"%s probe failed: %s", w.kind, say)
	}
	if r == success && streak < max(w.probe.SuccessThreshold, 1) || r == failure && streak < w.threshold() {
		return false
	}
	changed := false
	w.m.mu.Lock()
	s := w.subject
	switch {
	case w.kind == readiness:
		changed = s.ready != (r == success)
		s.ready = r == success
	case w.kind == startup && r == success:
		changed, done = true, true
		s.started = true
		close(s.begun)
	case r == failure:
		changed, done = true, true
		s.condemned = fmt.Sprintf("Container %s failed %s probe, will be restarted", w.spec.Name, lower(w.kind))
	}
	w.m.mu.Unlock()
	if changed {
		w.m.cfg.Wake(w.pod.UID)
	}
	return done
}

func (w *worker) threshold() int32 {
	if w.probe.FailureThreshold <= 0 {
		return 3
	}
	return w.probe.FailureThreshold
}

func lower(k kind) string {
	switch k {
	case startup:
		return "startup"
	case liveness:
		return "liveness"
	}
	return "readiness"
}

func (w *worker) count(r result) {
	name := [...]string{"successful", "failed", "unknown"}[r]
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.m.sums[sumKey{w.pod.Namespace, w.pod.Name, string(w.pod.UID), w.spec.Name, string(w.kind), name}]++
}

// ask puts the question once, within the probe's timeout.
func (w *worker) ask(ctx context.Context) (result, string) {
	limit := seconds(w.probe.TimeoutSeconds, 1)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch h := w.probe.ProbeHandler; {
	case h.Exec != nil:
		return w.exec(ctx, h.Exec.Command, limit)
	case h.HTTPGet != nil:
		return w.http(ctx, h.HTTPGet)
	case h.TCPSocket != nil:
		return w.tcp(ctx, h.TCPSocket)
	case h.GRPC != nil:
		return w.grpc(ctx, h.GRPC)
	}
	return unclear, "the probe names no action"
}
