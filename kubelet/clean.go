package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/kubelet/podworker"
	"keelson.dev/keelson/kubelet/source"
)

// retryClean is how soon a failed cleaning is tried again.
const retryClean = 2 * time.Second

// Clean frees what a stopped pod held. A pod that is to stay in the API keeps its dead containers and its logs, so
// that both can be asked for; one that is deleted keeps nothing. It implements podworker.Syncer.
//
// Order, and what breaks otherwise: volumes go before containers' records, so that after a crash there is still a
// record that leads here; the directory goes after the mounts, so that nothing behind a mount is deleted; the API
// object goes last, because its removal is what tells everybody that the node is free of the pod.
func (k *Kubelet) Clean(ctx context.Context, r podworker.Request) podworker.Result {
	k.parts.leaving.poke()
	rec := k.entry(r.Pod)
	rec.cancel(func(string) bool { return true })
	rec.wg.Wait()
	k.parts.objects.set(ctx, r.Pod.UID, nil)
	if err := k.clean(ctx, r, rec); err != nil {
		if ctx.Err() == nil {
			k.log.Warn("clean up pod: will try again", "pod", full(r.Pod), "err", err)
		}
		return podworker.Result{Next: time.Now().Add(retryClean)}
	}
	return podworker.Result{Done: true}
}

func (k *Kubelet) clean(ctx context.Context, r podworker.Request, rec *podRecord) error {
	pod := r.Pod
	k.finalStatus(r, rec)
	k.parts.devices.Free(pod.UID)
	if err := k.volumes.Unmount(ctx, pod.UID); err != nil {
		return fmt.Errorf("unmount volumes: %w", err)
	}
	deleted := r.Gone || pod.DeletionTimestamp != nil
	if !deleted {
		return k.parts.tree.Remove(pod.UID)
	}
	if err := k.removeRuntime(ctx, pod); err != nil {
		return err
	}
	if err := k.parts.tree.Remove(pod.UID); err != nil {
		return err
	}
	if err := k.removeDirs(pod); err != nil {
		return err
	}
	if r.Gone || source.IsStatic(pod) {
		return nil
	}
	return k.completeDeletion(ctx, pod)
}

// finalStatus makes sure that the pod's last status is on its way, also for a pod that was found dead after a
// restart of the daemon.
func (k *Kubelet) finalStatus(r podworker.Request, rec *podRecord) {
	known := false
	rec.with(func() { known = rec.final != nil })
	if known || r.Gone {
		return
	}
	if s, wanted := k.parts.writer.Wanted(r.Pod.UID); wanted {
		rec.with(func() { rec.final = &s })
	}
}

// removeRuntime removes the pod's sandboxes and with them its containers and log links.
func (k *Kubelet) removeRuntime(ctx context.Context, pod *corev1.Pod) error {
	k.parts.cache.Touch(pod.UID)
	seen, err := k.parts.cache.Get(ctx, pod.UID)
	if err != nil {
		return err
	}
	for _, c := range seen.Containers {
		if err := k.parts.exec.RemoveContainer(ctx, pod, c); err != nil {
			return err
		}
	}
	for _, s := range seen.Sandboxes {
		if err := k.parts.exec.RemoveSandbox(ctx, s.ID); err != nil {
			return err
		}
	}
	k.parts.cache.Touch(pod.UID)
	return nil
}

// removeDirs removes the pod's directory and logs, but never through a mount that is left.
func (k *Kubelet) removeDirs(pod *corev1.Pod) error {
	dir := k.parts.exec.PodDir(pod.UID)
	if pod.UID == "" || strings.Contains(string(pod.UID), "/") {
		return fmt.Errorf("pod UID %q names no directory", pod.UID)
	}
	left, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("list mounts below %s: %w", dir, err)
	}
	if len(left) > 0 {
		return fmt.Errorf("directory of pod %s: %s is still mounted", pod.UID, left[0].Mountpoint)
	}
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(k.parts.exec.LogDir(pod)))
}

// completeDeletion deletes the API object for good, once its last status is written.
func (k *Kubelet) completeDeletion(ctx context.Context, pod *corev1.Pod) error {
	if !k.parts.writer.Flushed(pod.UID) {
		return nil // the writer wakes us
	}
	zero := int64(0)
	err := k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("complete deletion: %w", err)
	}
	return nil
}
