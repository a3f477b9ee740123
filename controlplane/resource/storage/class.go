package storage

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

const (
	defaultAnnotation     = "storageclass.kubernetes.io/is-default-class"
	betaDefaultAnnotation = "storageclass.beta.kubernetes.io/is-default-class"
)

// IsDefault says whether claims without a class get this one.
func IsDefault(m metav1.ObjectMeta) bool {
	return m.Annotations[defaultAnnotation] == "true" || m.Annotations[betaDefaultAnnotation] == "true"
}

func storageClass() resource.Kind {
	type class = storagev1.StorageClass
	doc := class{}.SwaggerDoc()
	return resource.Of(resource.Kind{
		Kind: "StorageClass", Plural: "storageclasses", ShortNames: []string{"sc"}, NoAge: true,
		New:     func() runtime.Object { return &class{} },
		NewList: func() runtime.Object { return &storagev1.StorageClassList{} },
		Columns: []resource.Column{
			cell.DefaultName(func(c *class) bool { return IsDefault(c.ObjectMeta) }),
			resource.Col("Provisioner", "string", doc["provisioner"], 0, func(c *class) any { return c.Provisioner }),
			resource.Col("ReclaimPolicy", "string", doc["reclaimPolicy"], 0, func(c *class) any {
				return cell.Or(c.ReclaimPolicy, string(corev1.PersistentVolumeReclaimDelete))
			}),
			resource.Col("VolumeBindingMode", "string", doc["volumeBindingMode"], 0, func(c *class) any {
				return cell.Or(c.VolumeBindingMode, string(storagev1.VolumeBindingImmediate))
			}),
			resource.Col("AllowVolumeExpansion", "string", doc["allowVolumeExpansion"], 0, func(c *class) any {
				return ptr.Deref(c.AllowVolumeExpansion, false)
			}),
			cell.Age(),
		},
	}, resource.Rules[*class]{
		Default: func(c *class) {
			set(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
			set(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
		},
		Validate:       func(_ context.Context, c *class) field.ErrorList { return validateClass(c) },
		ValidateUpdate: validateClassUpdate,
		Warnings: func(_ context.Context, c, _ *class) []string {
			var out []string
			for i, t := range c.AllowedTopologies {
				for j, e := range t.MatchLabelExpressions {
					if msg := podspec.OldNodeLabel(e.Key); msg != "" {
						out = append(out, fmt.Sprintf("allowedTopologies[%d].matchLabelExpressions[%d].key: %s", i, j, msg))
					}
				}
			}
			return out
		},
	})
}

func validateClass(c *storagev1.StorageClass) field.ErrorList {
	errs := validateProvisioner(c.Provisioner, field.NewPath("provisioner"))
	errs = append(errs, validateParameters(c.Parameters, field.NewPath("parameters"))...)
	if p := ptr.Deref(c.ReclaimPolicy, ""); p != "" {
		errs = append(errs, check.OneOf(p, field.NewPath("reclaimPolicy"), corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else {
		errs = append(errs, check.OneOf(*c.VolumeBindingMode, field.NewPath("volumeBindingMode"),
			storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, validateTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

func validateClassUpdate(_ context.Context, c, old *storagev1.StorageClass) field.ErrorList {
	errs := validateClass(c)
	errs = append(errs, immutable(maps.Equal(c.Parameters, old.Parameters), field.NewPath("parameters"))...)
	errs = append(errs, immutable(c.Provisioner == old.Provisioner, field.NewPath("provisioner"))...)
	errs = append(errs, immutable(ptr.Equal(c.ReclaimPolicy, old.ReclaimPolicy), field.NewPath("reclaimPolicy"))...)
	return append(errs, immutable(ptr.Equal(c.VolumeBindingMode, old.VolumeBindingMode), field.NewPath("volumeBindingMode"))...)
}

// validateTopologies checks the terms and that no two say the same.
func validateTopologies(terms []corev1.TopologySelectorTerm, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := make([]map[string][]string, len(terms)) // empty maps: upstream takes a term without expressions as a copy of each
	for i, t := range terms {
		at := path.Index(i).Child("matchLabelExpressions")
		term := map[string][]string{}
		for j, r := range t.MatchLabelExpressions {
			errs = append(errs, validateRequirement(r, at.Index(j))...)
			if _, dup := term[r.Key]; dup {
				errs = append(errs, field.Duplicate(at.Index(j).Child("key"), r.Key))
			}
			values := slices.Clone(r.Values)
			slices.Sort(values)
			term[r.Key] = values
		}
		for _, s := range seen {
			if check.Same(s, term) {
				errs = append(errs, field.Duplicate(at, ""))
			}
		}
		seen = append(seen, term)
	}
	return errs
}

func validateRequirement(r corev1.TopologySelectorLabelRequirement, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	values := path.Child("values")
	if len(r.Values) == 0 {
		errs = append(errs, field.Required(values, ""))
	}
	seen := map[string]bool{}
	for i, v := range r.Values {
		if seen[v] {
			errs = append(errs, field.Duplicate(values.Index(i), v))
		}
		seen[v] = true
	}
	return append(errs, metavalidation.ValidateLabelName(r.Key, path.Child("key"))...)
}

func volumeAttributesClass() resource.Kind {
	type class = storagev1.VolumeAttributesClass
	return resource.Of(resource.Kind{
		Kind: "VolumeAttributesClass", Plural: "volumeattributesclasses", ShortNames: []string{"vac"},
		New:     func() runtime.Object { return &class{} },
		NewList: func() runtime.Object { return &storagev1.VolumeAttributesClassList{} },
		Columns: []resource.Column{
			resource.Col("DriverName", "string", class{}.SwaggerDoc()["driverName"], 0, func(c *class) any { return c.DriverName }),
		},
	}, resource.Rules[*class]{
		Validate: func(_ context.Context, c *class) field.ErrorList { return validateAttributes(c) },
		ValidateUpdate: func(_ context.Context, c, old *class) field.ErrorList {
			errs := append(validateAttributes(c), forbidden(c.DriverName == old.DriverName, "driverName")...)
			return append(errs, forbidden(maps.Equal(c.Parameters, old.Parameters), "parameters")...)
		},
	})
}

func validateAttributes(c *storagev1.VolumeAttributesClass) field.ErrorList {
	errs := validateProvisioner(c.DriverName, field.NewPath("driverName"))
	if len(c.Parameters) == 0 {
		return append(errs, field.Required(field.NewPath("parameters"), "must contain at least one key/value pair"))
	}
	return append(errs, validateParameters(c.Parameters, field.NewPath("parameters"))...)
}
