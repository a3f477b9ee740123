package source

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// IsMirror tells whether an API pod only shows a static one.
func IsMirror(pod *corev1.Pod) bool {
	_, is := pod.Annotations[AnnotationMirror]
	return is
}

// IsStatic tells whether a pod comes from a manifest on this node.
func IsStatic(pod *corev1.Pod) bool {
	return pod.Annotations[AnnotationSource] == "file" && !IsMirror(pod)
}

// Mirrors reports whether mirror shows exactly this version of static.
func Mirrors(mirror, static *corev1.Pod) bool {
	return mirror.DeletionTimestamp == nil && mirror.Annotations[AnnotationMirror] == static.Annotations[AnnotationHash]
}

// CreateMirror makes the mirror of a static pod. One that exists already is no error.
func CreateMirror(ctx context.Context, client kubernetes.Interface, static *corev1.Pod, node *corev1.Node) error {
	m := static.DeepCopy()
	m.UID, m.Status = "", corev1.PodStatus{}
	m.Annotations[AnnotationMirror] = static.Annotations[AnnotationHash]
	if node != nil && node.UID != "" {
		yes := true
		m.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &yes,
		}}
	}
	_, err := client.CoreV1().Pods(m.Namespace).Create(ctx, m, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create mirror of static pod %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// DeleteMirror deletes one mirror, by UID. One that is gone is no error.
func DeleteMirror(ctx context.Context, client kubernetes.Interface, namespace, name string, uid types.UID) error {
	zero := int64(0)
	err := client.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete mirror pod %s/%s: %w", namespace, name, err)
	}
	return nil
}
