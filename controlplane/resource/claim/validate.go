package claim

import (
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

// AccessModes are the known ones, in the order in which errors name them.
var AccessModes = []corev1.PersistentVolumeAccessMode{
	corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod,
}

// ValidateTemplate checks the template of a claim that is made for a pod's volume.
func ValidateTemplate(t *corev1.PersistentVolumeClaimTemplate, path *field.Path) field.ErrorList {
	meta := path.Child("metadata")
	return append(ValidateTemplateMeta(t.ObjectMeta, meta), ValidateSpec(&t.Spec, path.Child("spec"))...)
}

// ValidateTemplateMeta refuses what a made claim gets from its pod: name, owner and the like.
func ValidateTemplateMeta(m metav1.ObjectMeta, path *field.Path) field.ErrorList {
	errs := apivalidation.ValidateAnnotations(m.Annotations, path.Child("annotations"))
	errs = append(errs, metav1validation.ValidateLabels(m.Labels, path.Child("labels"))...)
	m.Labels, m.Annotations = nil, nil
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		if f := v.Type().Field(i); !v.Field(i).IsZero() {
			errs = append(errs, field.Forbidden(path.Child(lowerFirst(f.Name)), "cannot be set"))
		}
	}
	return errs
}

func lowerFirst(name string) string {
	return string(name[0]|0x20) + name[1:] // field names of ObjectMeta begin with an ASCII capital
}

// ValidateSpec checks what a claim asks for.
func ValidateSpec(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	errs := ValidateAccessModes(spec.AccessModes, path.Child("accessModes"), "at least 1 access mode is required")
	if spec.Selector != nil {
		errs = append(errs, check.Selector(spec.Selector, path.Child("selector"))...)
	}
	size, ok := spec.Resources.Requests[corev1.ResourceStorage]
	switch at := path.Child("resources").Key(string(corev1.ResourceStorage)); {
	case !ok:
		errs = append(errs, field.Required(at, ""))
	case size.Sign() <= 0:
		errs = append(errs, field.Invalid(at, size.String(), "must be greater than zero"))
	}
	if c := spec.StorageClassName; c != nil && *c != "" {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*c, false), path.Child("storageClassName"), *c)...)
	}
	if spec.VolumeMode != nil {
		errs = append(errs, check.OneOf(*spec.VolumeMode, path.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	errs = append(errs, validateSources(spec, path)...)
	if c := spec.VolumeAttributesClassName; c != nil && *c != "" {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*c, false), path.Child("volumeAttributesClassName"), *c)...)
	}
	return errs
}

// ValidateAccessModes checks the modes of a claim or volume; missing explains an empty list.
func ValidateAccessModes(modes []corev1.PersistentVolumeAccessMode, path *field.Path, missing string) field.ErrorList {
	var errs field.ErrorList
	if len(modes) == 0 {
		errs = append(errs, field.Required(path, missing))
	}
	others := false
	for _, mode := range modes {
		unknown := check.OneOf(mode, path, AccessModes...)
		errs = append(errs, unknown...)
		others = others || len(unknown) == 0 && mode != corev1.ReadWriteOncePod
	}
	if others && slices.Contains(modes, corev1.ReadWriteOncePod) {
		errs = append(errs, field.Forbidden(path, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// validateSources checks what the volume is to be filled from. dataSource is the older of two ways to say it.
func validateSources(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	source, ref := spec.DataSource, spec.DataSourceRef
	if source != nil {
		errs = append(errs, validateSource(source.Name, source.Kind, source.APIGroup, path.Child("dataSource"))...)
	}
	elsewhere := false
	if ref != nil {
		at := path.Child("dataSourceRef")
		errs = append(errs, validateSource(ref.Name, ref.Kind, ref.APIGroup, at)...)
		if ref.Namespace != nil && *ref.Namespace != "" {
			elsewhere = true
			errs = append(errs, check.Strings(apivalidation.ValidateNamespaceName(*ref.Namespace, false), at.Child("namespace"), *ref.Namespace)...)
		}
	}
	if source == nil || ref == nil {
		return errs
	}
	same := reflect.DeepEqual(source.APIGroup, ref.APIGroup) && source.Kind == ref.Kind && source.Name == ref.Name
	switch {
	case elsewhere:
		errs = append(errs, field.Invalid(path, path.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified"))
	case !same:
		errs = append(errs, field.Invalid(path, path.Child("dataSource"), "must match dataSourceRef"))
	}
	return errs
}

func validateSource(name, kind string, group *string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	if kind == "" {
		errs = append(errs, field.Required(path.Child("kind"), ""))
	}
	if group != nil && *group != "" {
		return append(errs, check.Strings(validation.IsDNS1123Subdomain(*group), path.Child("apiGroup"), *group)...)
	}
	if kind != "PersistentVolumeClaim" {
		errs = append(errs, field.Invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
	}
	return errs
}

// Warnings are about fractions of bytes, which storage cannot have.
func Warnings(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) []string {
	var warnings []string
	say := func(list corev1.ResourceList, name string) {
		if size := list[corev1.ResourceStorage]; size.MilliValue()%1000 != 0 {
			warnings = append(warnings, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer",
				path.Child("resources", name).Key(string(corev1.ResourceStorage)), size.String()))
		}
	}
	say(spec.Resources.Requests, "requests")
	say(spec.Resources.Limits, "limits")
	return warnings
}
