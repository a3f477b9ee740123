package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// orphans cleans, once after the start, what is left of pods that were deleted while the kubelet was away: sandboxes
// and containers in the runtime, pod directories with their volumes, pod cgroups. It waits for the API's list and
// the folder, without which every pod would look like an orphan.
func (k *Kubelet) orphans(ctx context.Context) error {
	for !k.parts.pods.Synced() {
		if !pause(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	if k.cfg.Paths.Manifests != "" && !pause(ctx, time.Second) {
		return nil
	}
	for delay := time.Second; ; delay = min(2*delay, time.Minute) {
		err := k.findOrphans(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		k.log.Warn("look for orphaned pods: will try again", "err", err)
		if !pause(ctx, delay) {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (k *Kubelet) findOrphans(ctx context.Context) error {
	wanted := map[types.UID]bool{}
	for _, p := range k.parts.pods.Pods() {
		wanted[p.UID] = true
	}
	k.mu.Lock()
	for _, p := range k.statics {
		wanted[p.UID] = true
	}
	k.mu.Unlock()
	orphan := func(uid types.UID, namespace, name string) {
		if wanted[uid] || uid == "" || k.parts.workers.Status(uid) != "" {
			return
		}
		wanted[uid] = true
		k.log.Info("cleaning up an orphaned pod", "uid", uid, "namespace", namespace, "name", name)
		k.parts.workers.Drop(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Namespace: namespace, Name: name}})
	}
	k.parts.devices.Retain(func(uid types.UID) bool { return wanted[uid] || k.parts.workers.Status(uid) != "" })
	known, err := k.parts.cache.List(ctx)
	if err != nil {
		return err
	}
	for _, p := range known {
		orphan(p.UID, p.Namespace, p.Name)
	}
	dirs, err := os.ReadDir(filepath.Join(k.cfg.Paths.Root, "pods"))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, d := range dirs {
		orphan(types.UID(d.Name()), "", "")
	}
	for _, uid := range k.parts.tree.Pods() {
		orphan(uid, "", "")
	}
	return nil
}
