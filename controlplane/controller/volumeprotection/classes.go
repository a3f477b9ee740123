package volumeprotection

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const classFinalizer = "kubernetes.io/vac-protection"

type classGuard struct {
	controller.Deps
	classes, claims, volumes cache.SharedIndexInformer
}

// NewClasses returns the controller of VolumeAttributesClasses: it puts their finalizer on too, and takes it off a deleted one
// that no claim and no volume names (KEP-3751).
func NewClasses(d controller.Deps) (*controller.Loop, error) {
	core := d.Informers.Core().V1()
	g := &classGuard{Deps: d, classes: d.Informers.Storage().V1().VolumeAttributesClasses().Informer(),
		claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer()}
	loop := controller.NewLoop("vac-protection", d.Log, 1, g.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, g.classes, func(c, _ *storagev1.VolumeAttributesClass) []string { return []string{c.Name} }),
		controller.Watch(loop, g.claims, func(now, old *corev1.PersistentVolumeClaim) []string {
			return append(classesOf(now), classesOf(old)...)
		}),
		controller.Watch(loop, g.volumes, func(now, old *corev1.PersistentVolume) []string { return append(classOf(now), classOf(old)...) }))
}

func (g *classGuard) reconcile(ctx context.Context, name string) (time.Duration, error) {
	c := controller.Get[storagev1.VolumeAttributesClass](g.classes, name)
	if c == nil {
		return 0, nil
	}
	used := func() bool {
		return slices.ContainsFunc(g.claims.GetStore().List(), func(o any) bool { return slices.Contains(classesOf(o.(*corev1.PersistentVolumeClaim)), name) }) ||
			slices.ContainsFunc(g.volumes.GetStore().List(), func(o any) bool { return slices.Contains(classOf(o.(*corev1.PersistentVolume)), name) })
	}
	finalizers, changed := guarded(c.Finalizers, c.DeletionTimestamp != nil, used)
	if !changed {
		return 0, nil
	}
	c = c.DeepCopy()
	c.Finalizers = finalizers
	_, err := g.Client.StorageV1().VolumeAttributesClasses().Update(ctx, c, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return 0, err
}

// guarded are a class' finalizers as they should be; false: they are.
func guarded(have []string, deleted bool, used func() bool) ([]string, bool) {
	switch has := slices.Contains(have, classFinalizer); {
	case !has && !deleted:
		return append(slices.Clone(have), classFinalizer), true
	case has && deleted && !used():
		return slices.DeleteFunc(slices.Clone(have), func(f string) bool { return f == classFinalizer }), true
	}
	return have, false
}

// classesOf lists the classes that a claim wants, has, and is on the way to. A nil claim has none.
func classesOf(c *corev1.PersistentVolumeClaim) (names []string) {
	if c == nil {
		return nil
	}
	for _, name := range []*string{c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName} {
		if name != nil && *name != "" {
			names = append(names, *name)
		}
	}
	if m := c.Status.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" {
		names = append(names, m.TargetVolumeAttributesClassName)
	}
	return names
}

// classOf is the class of a volume, in a list; a nil volume has none.
func classOf(v *corev1.PersistentVolume) []string {
	if v == nil || v.Spec.VolumeAttributesClassName == nil || *v.Spec.VolumeAttributesClassName == "" {
		return nil
	}
	return []string{*v.Spec.VolumeAttributesClassName}
}
