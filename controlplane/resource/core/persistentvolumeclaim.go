package core

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/claim"
	"keelson.dev/keelson/controlplane/resource/column"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

func persistentVolumeClaimKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "PersistentVolumeClaim", Plural: "persistentvolumeclaims", ShortNames: []string{"pvc"}, Namespaced: true,
		New:       func() runtime.Object { return &corev1.PersistentVolumeClaim{} },
		NewList:   func() runtime.Object { return &corev1.PersistentVolumeClaimList{} },
		HasStatus: true,
		Columns:   claimColumns(),
	}, resource.Rules[*corev1.PersistentVolumeClaim]{
		Default: claim.Default,
		PrepareForCreate: func(_ context.Context, c *corev1.PersistentVolumeClaim) {
			c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
			prepareSources(&c.Spec, nil)
		},
		PrepareForUpdate: func(_ context.Context, c, old *corev1.PersistentVolumeClaim) { prepareSources(&c.Spec, &old.Spec) },
		Validate: func(_ context.Context, c *corev1.PersistentVolumeClaim) field.ErrorList {
			return claim.ValidateSpec(&c.Spec, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, c, old *corev1.PersistentVolumeClaim) field.ErrorList {
			return validateClaimUpdate(c, old)
		},
		PrepareStatusUpdate: func(_ context.Context, c, old *corev1.PersistentVolumeClaim) {
			if old.Status.HealthStatus == nil {
				c.Status.HealthStatus = nil
			}
		},
		ValidateStatusUpdate: func(_ context.Context, c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
			return validateClaimStatus(c)
		},
		Warnings: func(_ context.Context, c, _ *corev1.PersistentVolumeClaim) []string { return claimWarnings(c) },
	})
}

// prepareSources keeps dataSource and dataSourceRef in step. By dataSource only claims and snapshots could ever be named,
// and everything else was ignored; a client that knows no more than that must not be refused now (KEP-1495).
func prepareSources(spec, old *corev1.PersistentVolumeClaimSpec) {
	elsewhere := func() bool {
		ref := spec.DataSourceRef
		return ref != nil && ref.Namespace != nil && *ref.Namespace != ""
	}
	if elsewhere() && (old == nil || old.DataSourceRef == nil) {
		spec.DataSourceRef = nil // sources in other namespaces are an alpha feature
	}
	hadSource := old != nil && (old.DataSource != nil || old.DataSourceRef != nil)
	if !hadSource && spec.DataSourceRef == nil && !isClaimOrSnapshot(spec.DataSource) {
		spec.DataSource = nil
	}
	switch source, ref := spec.DataSource, spec.DataSourceRef; {
	case source != nil && ref == nil:
		spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: source.APIGroup, Kind: source.Kind, Name: source.Name}
	case source == nil && ref != nil && !elsewhere():
		spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}
	}
}

func isClaimOrSnapshot(s *corev1.TypedLocalObjectReference) bool {
	if s == nil {
		return false
	}
	group := ""
	if s.APIGroup != nil {
		group = *s.APIGroup
	}
	return s.Kind == "PersistentVolumeClaim" && group == "" || s.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io"
}

func claimColumns() []resource.Column {
	type pvc = *corev1.PersistentVolumeClaim
	status := func(name, doc string, value func(pvc) string) resource.Column {
		return resource.Col(name, "string", column.Doc(corev1.PersistentVolumeClaimStatus{}, doc), 0, func(c pvc) any { return value(c) })
	}
	return []resource.Column{
		status("Status", "phase", func(c pvc) string { return phaseText(c.DeletionTimestamp, string(c.Status.Phase)) }),
		resource.Col("Volume", "string", column.Doc(corev1.PersistentVolumeClaimSpec{}, "volumeName"), 0, func(c pvc) any { return c.Spec.VolumeName }),
		status("Capacity", "capacity", func(c pvc) string {
			if c.Spec.VolumeName == "" {
				return ""
			}
			size := c.Status.Capacity[corev1.ResourceStorage]
			return size.String()
		}),
		status("Access Modes", "accessModes", func(c pvc) string {
			if c.Spec.VolumeName == "" {
				return ""
			}
			return accessModes(c.Status.AccessModes)
		}),
		resource.Col("StorageClass", "string", "StorageClass of the pvc", 0, func(c pvc) any {
			if class, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
				return class
			}
			return cell.Or(c.Spec.StorageClassName, "")
		}),
		resource.Col("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc", 0,
			func(c pvc) any { return cell.Or(c.Spec.VolumeAttributesClassName, "<unset>") }),
		resource.Col("VolumeMode", "string", column.Doc(corev1.PersistentVolumeClaimSpec{}, "volumeMode"), 1,
			func(c pvc) any { return cell.Or(c.Spec.VolumeMode, "<unset>") }),
	}
}

func claimWarnings(c *corev1.PersistentVolumeClaim) []string {
	var warnings []string
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		warnings = append(warnings, fmt.Sprintf(`%s: deprecated since v1.8; use "storageClassName" attribute instead`,
			field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation)))
	}
	return append(warnings, claim.Warnings(&c.Spec, field.NewPath("spec"))...)
}

// validateClaimUpdate: of a claim only the volume may be set once and, when bound, size and attributes class change; a
// class may be given where there was none.
func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	specPath := field.NewPath("spec")
	errs := claim.ValidateSpec(&c.Spec, specPath)
	if hasSourceGroup(&old.Spec) {
		errs = slices.DeleteFunc(errs, func(e *field.Error) bool { return strings.HasSuffix(e.Field, ".apiGroup") })
	}
	now, was := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	if was.VolumeName == "" {
		was.VolumeName = now.VolumeName
	}
	classErrs := mayGetClass(c, old, now, was)
	errs = append(errs, classErrs...)
	if c.Status.Phase == corev1.ClaimBound {
		if now.Resources.Requests != nil {
			now.Resources.Requests[corev1.ResourceStorage] = old.Spec.Resources.Requests[corev1.ResourceStorage]
		}
		now.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(now, was) {
		errs = append(errs, field.Forbidden(specPath, "spec is immutable after creation except resources.requests and "+
			fmt.Sprintf("volumeAttributesClassName for bound claims\n%v", diff.Diff(check.Shown(*was), check.Shown(*now)))))
	}
	newSize, oldSize := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	// A claim whose growth failed may ask for less again, but not for less than it has.
	if has := old.Status.Capacity[corev1.ResourceStorage]; newSize.Cmp(oldSize) < 0 && newSize.Cmp(has) <= 0 {
		errs = append(errs, field.Forbidden(specPath.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(c.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	return append(errs, validateAttributesClass(c, old, specPath.Child("volumeAttributesClassName"))...)
}

// hasSourceGroup: an API group of a source was not always checked, and the field cannot change anyway.
func hasSourceGroup(spec *corev1.PersistentVolumeClaimSpec) bool {
	return spec.DataSource != nil && spec.DataSource.APIGroup != nil || spec.DataSourceRef != nil && spec.DataSourceRef.APIGroup != nil
}

// mayGetClass hides a permitted change of the storage class from the comparison of now with was.
func mayGetClass(c, old *corev1.PersistentVolumeClaim, now, was *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	oldText, hadText := old.Annotations[corev1.BetaStorageClassAnnotation]
	newText, hasText := c.Annotations[corev1.BetaStorageClassAnnotation]
	given := old.Spec.StorageClassName == nil && c.Spec.StorageClassName != nil
	if hadText && given && *c.Spec.StorageClassName == oldText && (!hasText || newText == oldText) {
		now.StorageClassName = was.StorageClassName // moved from the annotation to the field
		return nil
	}
	var errs field.ErrorList
	if newText != oldText {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations", corev1.BetaStorageClassAnnotation), newText, apivalidation.FieldImmutableErrorMsg))
	}
	if given && (!hadText || *c.Spec.StorageClassName == oldText) {
		now.StorageClassName = was.StorageClassName
	}
	return errs
}

func validateAttributesClass(c, old *corev1.PersistentVolumeClaim, path *field.Path) field.ErrorList {
	now := c.Spec.VolumeAttributesClassName
	if old.Status.CurrentVolumeAttributesClassName == nil || equality.Semantic.DeepEqual(now, old.Spec.VolumeAttributesClassName) {
		return nil
	}
	switch {
	case now == nil:
		return field.ErrorList{field.Forbidden(path, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil")}
	case *now == "":
		return field.ErrorList{field.Forbidden(path, "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil")}
	}
	return nil
}

func validateClaimStatus(c *corev1.PersistentVolumeClaim) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	if c.ResourceVersion == "" {
		errs = append(errs, field.Required(field.NewPath("resourceVersion"), ""))
	}
	if len(c.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	for name, size := range c.Status.Capacity {
		errs = append(errs, check.Quantity(size.Value(), path.Child("capacity").Key(string(name)))...)
	}
	at := path.Child("allocatedResourceStatuses")
	for name, status := range c.Status.AllocatedResourceStatuses {
		errs = append(errs, claimResource(name, at)...)
		known := []corev1.ClaimResourceStatus{corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
			corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible, corev1.PersistentVolumeClaimNodeResizePending}
		if len(check.OneOf(status, at, known...)) > 0 {
			errs = append(errs, field.NotSupported(at, name, known)) // upstream names the resource, not the status
		}
	}
	at = path.Child("allocatedResources")
	for name, size := range c.Status.AllocatedResources {
		if unknown := claimResource(name, at); len(unknown) > 0 {
			errs = append(errs, unknown...)
			continue
		}
		if negative := check.Quantity(size.Value(), at.Key(string(name))); len(negative) > 0 {
			errs = append(errs, negative...)
			continue
		}
		errs = append(errs, resourcename.ValidateQuantity(corev1.ResourceStorage, size, at.Key(string(name)))...)
	}
	return errs
}

func claimResource(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if errs := check.Strings(validation.IsQualifiedName(string(name)), path, string(name)); len(errs) > 0 {
		return errs
	}
	if resourcename.IsNative(name) && name != corev1.ResourceStorage {
		return field.ErrorList{field.NotSupported(path, string(name), []corev1.ResourceName{corev1.ResourceStorage})}
	}
	return nil
}
