package persistentvolume

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	recycleNamespace = metav1.NamespaceDefault
	// recycleLook is how often a recycler pod is looked at: a poll, since the binder does not follow all pods for this.
	recycleLook = time.Second
	// recycleLimit is how long emptying may take, in seconds.
	recycleLimit = 3600
)

// recycle empties a volume with a pod, then frees it. Only hostPath and NFS volumes can be recycled.
func (b *binder) recycle(ctx context.Context, pv *corev1.PersistentVolume) (time.Duration, error) {
	if pv.Status.Phase == corev1.VolumeFailed {
		return 0, nil
	}
	if pv.Spec.HostPath == nil && pv.Spec.NFS == nil {
		return 0, b.fail(ctx, pv, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
	}
	pods := b.Client.CoreV1().Pods(recycleNamespace)
	name := "recycler-for-" + pv.Name
	pod, err := pods.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if _, err := pods.Create(ctx, b.recycler(name, pv), metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return 0, err
		}
		return recycleLook, nil
	}
	if err != nil {
		return 0, err
	}
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		b.Events.Eventf(pv, corev1.EventTypeNormal, "VolumeRecycled", "Volume recycled")
		// The pod goes first: after a crash between the two the volume is emptied once more, and no success of an earlier time
		// counts for a later claim's data.
		released := pv.DeepCopy()
		metav1.SetMetaDataAnnotation(&released.ObjectMeta, boundByController, "yes") // a recycled volume is anybody's
		if err := b.removeRecycler(ctx, name, pod); err != nil {
			return 0, err
		}
		return 0, b.free(ctx, released)
	case corev1.PodFailed:
		if err := b.removeRecycler(ctx, name, pod); err != nil {
			return 0, err
		}
		return 0, b.fail(ctx, pv, "VolumeFailedRecycle", "Recycle failed: %s", pod.Status.Message)
	}
	return recycleLook, nil
}

func (b *binder) removeRecycler(ctx context.Context, name string, pod *corev1.Pod) error {
	err := b.Client.CoreV1().Pods(recycleNamespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (b *binder) recycler(name string, pv *corev1.PersistentVolume) *corev1.Pod {
	source := corev1.VolumeSource{HostPath: pv.Spec.HostPath, NFS: pv.Spec.NFS}
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: ptr.To[int64](recycleLimit), AutomountServiceAccountToken: ptr.To(false),
		Volumes: []corev1.Volume{{Name: "vol", VolumeSource: source}},
		Containers: []corev1.Container{{Name: "recycler", Image: b.recycleImage, ImagePullPolicy: corev1.PullIfNotPresent,
			Args: []string{"scrub", "/scrub"}, VolumeMounts: []corev1.VolumeMount{{Name: "vol", MountPath: "/scrub"}}}},
	}
	if pv.Spec.NodeAffinity != nil && pv.Spec.NodeAffinity.Required != nil {
		spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: pv.Spec.NodeAffinity.Required}}
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: recycleNamespace}, Spec: spec}
}
