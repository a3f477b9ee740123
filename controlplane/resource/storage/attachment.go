package storage

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
)

const (
	maxMetadataBytes = 256 * 1024
	maxErrorMessage  = 1024
)

func volumeAttachment() resource.Kind {
	type attachment = storagev1.VolumeAttachment
	doc := storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	attacher := resource.Col("Attacher", "string", doc["attacher"], 0, func(a *attachment) any { return a.Spec.Attacher })
	attacher.Format = "name"
	return resource.Of(resource.Kind{
		Kind: "VolumeAttachment", Plural: "volumeattachments", HasStatus: true, ForbidUnconditionalUpdate: true,
		New:     func() runtime.Object { return &attachment{} },
		NewList: func() runtime.Object { return &storagev1.VolumeAttachmentList{} },
		Columns: []resource.Column{
			attacher,
			resource.Col("PV", "string", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"], 0,
				func(a *attachment) any { return cell.Or(a.Spec.Source.PersistentVolumeName, "") }),
			resource.Col("Node", "string", doc["nodeName"], 0, func(a *attachment) any { return a.Spec.NodeName }),
			resource.Col("Attached", "boolean", storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"], 0,
				func(a *attachment) any { return a.Status.Attached }),
		},
	}, resource.Rules[*attachment]{
		Validate: func(_ context.Context, a *attachment) field.ErrorList {
			errs := validateAttachment(a)
			errs = append(errs, validateDriverName(a.Spec.Attacher, field.NewPath("spec", "attacher"))...)
			if pv := a.Spec.Source.PersistentVolumeName; pv != nil {
				errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*pv, false), field.NewPath("spec", "source", "persistentVolumeName"), *pv)...)
			}
			return errs
		},
		ValidateUpdate: func(_ context.Context, a, old *attachment) field.ErrorList {
			errs := validateAttachment(a)
			if !check.Same(a.Spec, old.Spec) {
				errs = append(errs, field.Invalid(field.NewPath("spec"), a.Spec, "field is immutable"))
			}
			return errs
		},
		ValidateStatusUpdate: func(_ context.Context, a, _ *attachment) field.ErrorList { return validateAttachment(a) },
	})
}

func validateAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if a.Spec.Attacher == "" {
		errs = append(errs, field.Required(path.Child("attacher"), ""))
	}
	source := path.Child("source")
	switch s := a.Spec.Source; {
	case s.InlineVolumeSpec == nil && s.PersistentVolumeName == nil:
		errs = append(errs, field.Required(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case s.InlineVolumeSpec != nil && s.PersistentVolumeName != nil:
		errs = append(errs, field.Forbidden(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case s.PersistentVolumeName != nil && *s.PersistentVolumeName == "":
		errs = append(errs, field.Required(source.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
	}
	errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(a.Spec.NodeName, false), path.Child("nodeName"), a.Spec.NodeName)...)
	status, size := field.NewPath("status"), 0
	for k, v := range a.Status.AttachmentMetadata {
		size += len(k) + len(v)
	}
	if size > maxMetadataBytes {
		errs = append(errs, field.TooLong(status.Child("attachmentMetadata"), "", maxMetadataBytes))
	}
	errs = append(errs, validateVolumeError(a.Status.AttachError, status.Child("attachError"))...)
	return append(errs, validateVolumeError(a.Status.DetachError, status.Child("detachError"))...)
}

func validateVolumeError(e *storagev1.VolumeError, path *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxErrorMessage {
		errs = append(errs, field.TooLong(path.Child("message"), "", maxErrorMessage))
	}
	return append(errs, check.NonNegativePtr(e.ErrorCode, path.Child("errorCode"))...)
}
