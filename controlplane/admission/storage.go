package admission

import (
	"context"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/storage"
)

// newDefaultStorageClass gives a claim that names no class the default one.
func newDefaultStorageClass(c *cluster) admission.Interface {
	return admitter{admission.NewHandler(admission.Create), func(ctx context.Context, a admission.Attributes) error {
		claim, ok := object[*corev1.PersistentVolumeClaim](a, claims)
		if !ok || hasClass(claim) {
			return nil
		}
		list, err := c.storage.List(ctx, "")
		if err != nil {
			return admission.NewForbidden(a, err)
		}
		if class := newestDefault(list, func(s *storagev1.StorageClass) metav1.ObjectMeta { return s.ObjectMeta }, storage.IsDefault); class != nil {
			claim.Spec.StorageClassName = ptr.To((*class).Name)
		}
		return nil
	}}
}

func hasClass(claim *corev1.PersistentVolumeClaim) bool {
	_, annotated := claim.Annotations[corev1.BetaStorageClassAnnotation]
	return annotated || claim.Spec.StorageClassName != nil
}

func classOf(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return ptr.Deref(claim.Spec.StorageClassName, "")
}

// newestDefault picks among several defaults the one made last, by name among equals; nil if there is none.
func newestDefault[T any](list []T, of func(T) metav1.ObjectMeta, isDefault func(metav1.ObjectMeta) bool) *T {
	list = slices.DeleteFunc(slices.Clone(list), func(t T) bool { return !isDefault(of(t)) })
	if len(list) == 0 {
		return nil
	}
	newest := slices.MinFunc(list, func(x, y T) int {
		a, b := of(x), of(y)
		if c := b.CreationTimestamp.Compare(a.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return &newest
}

// protections are the finalizers that keep storage from vanishing while it is in use.
var protections = map[schema.GroupResource]string{
	volumes: "kubernetes.io/pv-protection",
	claims:  "kubernetes.io/pvc-protection",
	{Group: storagev1.GroupName, Resource: "volumeattributesclasses"}: "kubernetes.io/vac-protection",
}

func newInUseProtection() admission.Interface {
	return admitter{admission.NewHandler(admission.Create), func(_ context.Context, a admission.Attributes) error {
		finalizer, ok := protections[a.GetResource().GroupResource()]
		if !ok || a.GetSubresource() != "" {
			return nil
		}
		m, err := meta.Accessor(a.GetObject())
		if err != nil {
			return err
		}
		if !slices.Contains(m.GetFinalizers(), finalizer) {
			m.SetFinalizers(append(m.GetFinalizers(), finalizer))
		}
		return nil
	}}
}

// newResize lets a claim grow only where its class says that volumes can.
func newResize(c *cluster) admission.Interface {
	return validator{admission.NewHandler(admission.Update), func(ctx context.Context, a admission.Attributes) error {
		claim, ok := object[*corev1.PersistentVolumeClaim](a, claims)
		if !ok {
			return nil
		}
		old, ok := a.GetOldObject().(*corev1.PersistentVolumeClaim)
		if !ok {
			return nil
		}
		now, was := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
		if now.Cmp(was) <= 0 {
			return nil
		}
		if old.Status.Phase != corev1.ClaimBound {
			return admission.NewForbidden(a, errors.New("Only bound persistent volume claims can be expanded"))
		}
		if name := classOf(claim); name != "" && name == classOf(old) {
			if class, err := c.storage.Get(ctx, "", name); err == nil && ptr.Deref(class.AllowVolumeExpansion, false) {
				return nil
			}
		}
		return admission.NewForbidden(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
	}}
}
