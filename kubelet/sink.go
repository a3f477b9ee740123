package kubelet

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/kubelet/source"
)

// apiSink takes pods from the API. Mirrors are not run: they only show what runs already.
type apiSink struct{ k *Kubelet }

// Set implements source.Sink.
func (s apiSink) Set(pod *corev1.Pod) {
	if source.IsMirror(pod) {
		s.k.mirrorChanged(pod)
		return
	}
	s.k.parts.workers.Set(pod)
	s.k.parts.writer.Check(pod.UID)
}

// Drop implements source.Sink.
func (s apiSink) Drop(pod *corev1.Pod) {
	if source.IsMirror(pod) {
		s.k.mirrorChanged(pod)
		return
	}
	s.k.parts.workers.Drop(pod)
}

// staticSink takes pods from the folder.
type staticSink struct{ k *Kubelet }

// Set implements source.Sink.
func (s staticSink) Set(pod *corev1.Pod) {
	s.k.mu.Lock()
	s.k.statics[full(pod)] = pod
	s.k.mu.Unlock()
	s.k.parts.workers.Set(pod)
	s.k.pokeMirrors()
}

// Drop implements source.Sink.
func (s staticSink) Drop(pod *corev1.Pod) {
	s.k.mu.Lock()
	if now := s.k.statics[full(pod)]; now != nil && now.UID == pod.UID {
		delete(s.k.statics, full(pod))
	}
	s.k.mu.Unlock()
	s.k.parts.workers.Drop(pod)
	s.k.pokeMirrors()
}

// target is the API's object for a pod; see statuswriter.Config.
func (k *Kubelet) target(uid types.UID) *corev1.Pod {
	_, pod := k.known(uid)
	if pod == nil {
		return nil
	}
	api := k.parts.pods.Get(pod.Namespace, pod.Name)
	switch {
	case api == nil:
		return nil
	case source.IsStatic(pod) && source.IsMirror(api):
		return api
	case api.UID == uid:
		return api
	}
	return nil
}

func (k *Kubelet) mirrorChanged(mirror *corev1.Pod) {
	k.mu.Lock()
	static := k.statics[full(mirror)]
	k.mu.Unlock()
	if static != nil {
		k.parts.writer.Check(static.UID)
	}
	k.pokeMirrors()
}

func (k *Kubelet) pokeMirrors() {
	select {
	case k.mirrorWake <- struct{}{}:
	default: // one is pending
	}
}

// mirrors keeps one mirror in the API for each static pod and none for any other.
func (k *Kubelet) mirrors(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.mirrorWake:
		case <-timer.C:
		}
		if !k.parts.pods.Synced() { // nothing can be said of mirrors before
			timer.Reset(50 * time.Millisecond)
			continue
		}
		if err := k.syncMirrors(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("mirror pods: will try again", "err", err)
			timer.Reset(2 * time.Second)
		}
	}
}

func (k *Kubelet) syncMirrors(ctx context.Context) error {
	k.mu.Lock()
	statics := make(map[string]*corev1.Pod, len(k.statics))
	for name, p := range k.statics {
		statics[name] = p
	}
	k.mu.Unlock()
	for _, m := range k.parts.pods.Pods() {
		if !source.IsMirror(m) {
			continue
		}
		static := statics[full(m)]
		if static != nil && source.Mirrors(m, static) {
			delete(statics, full(m))
			continue
		}
		if err := source.DeleteMirror(ctx, k.client, m.Namespace, m.Name, m.UID); err != nil {
			return err
		}
		if static != nil {
			delete(statics, full(m)) // made again when the watch has shown the deletion
		}
	}
	node, err := k.parts.cluster.Node()
	if err != nil && len(statics) > 0 {
		return err
	}
	for _, p := range statics {
		if err := source.CreateMirror(ctx, k.client, p, node); err != nil {
			return err
		}
	}
	return nil
}
