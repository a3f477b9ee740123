package storage

import (
	"context"
	"math"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/persistentvolume"
	"keelson.dev/keelson/controlplane/resource/volumesource"
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
		Default: func(a *attachment) {
			if inline := a.Spec.Source.InlineVolumeSpec; inline != nil {
				persistentvolume.Default(inline)
			}
		},
		Validate: func(_ context.Context, a *attachment) field.ErrorList { return validateAttachment(a, newAttacher) },
		ValidateUpdate: func(_ context.Context, a, old *attachment) field.ErrorList {
			return append(validateAttachment(a, volumesource.CSIDriver), immutable(check.Same(a.Spec, old.Spec), field.NewPath("spec"))...)
		},
		PrepareStatusUpdate: func(_ context.Context, a, old *attachment) {
			metav1.ResetObjectMetaForStatus(&a.ObjectMeta, &old.ObjectMeta)
		},
		ValidateStatusUpdate: func(_ context.Context, a, _ *attachment) field.ErrorList { return validateAttachment(a, newAttacher) },
	})
}

// attacherRule checks the name of an attacher.
type attacherRule func(name string, path *field.Path) field.ErrorList

// newAttacher has upstream's words for a new attachment, which are not those for one that changes what it may not.
func newAttacher(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > maxDriverName {
		errs = append(errs, field.TooLongCharacters(path, name, maxDriverName))
	}
	return append(errs, check.Strings(content.IsDNS1123SubdomainCaseless(name), path, name)...)
}

func validateAttachment(a *storagev1.VolumeAttachment, attacher attacherRule) field.ErrorList {
	path := field.NewPath("spec")
	errs := attacher(a.Spec.Attacher, path.Child("attacher"))
	source := path.Child("source")
	switch s := a.Spec.Source; {
	case s.InlineVolumeSpec == nil && s.PersistentVolumeName == nil:
		errs = append(errs, field.Required(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case s.InlineVolumeSpec != nil && s.PersistentVolumeName != nil:
		errs = append(errs, field.Forbidden(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case s.PersistentVolumeName != nil && *s.PersistentVolumeName == "":
		errs = append(errs, field.Required(source.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
	case s.InlineVolumeSpec != nil:
		errs = append(errs, persistentvolume.ValidateInline(s.InlineVolumeSpec, source.Child("inlineVolumeSpec"))...)
	}
	if pv := a.Spec.Source.PersistentVolumeName; pv != nil {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*pv, false), source.Child("persistentVolumeName"), *pv)...)
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
	if c := e.ErrorCode; c != nil && *c < 0 {
		errs = append(errs, field.Invalid(path.Child("errorCode"), *c, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}
