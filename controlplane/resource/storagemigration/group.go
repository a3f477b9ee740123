package storagemigration

import (
	"context"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
)

type migration = storagemigrationv1.StorageVersionMigration

// Group is storagemigration.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        storagemigrationv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{storagemigrationv1.AddToScheme},
		Kinds: []resource.Kind{resource.Of(resource.Kind{
			Kind: "StorageVersionMigration", Plural: "storageversionmigrations", HasStatus: true, HasGeneration: true,
			ForbidUnconditionalUpdate: true, NoAge: true,
			New:     func() runtime.Object { return &migration{} },
			NewList: func() runtime.Object { return &storagemigrationv1.StorageVersionMigrationList{} },
			Columns: []resource.Column{
				cell.Name(),
				resource.Col("Resource", "string", "Fully qualified resource to migrate", 0, func(m *migration) any {
					gr := metav1.GroupResource(m.Spec.Resource)
					return gr.String()
				}),
			},
		}, resource.Rules[*migration]{
			Validate: func(_ context.Context, m *migration) field.ErrorList { return validate(m) },
			ValidateUpdate: func(_ context.Context, m, old *migration) field.ErrorList {
				return append(validate(m), check.Immutable(m.Spec, old.Spec, field.NewPath("spec"))...)
			},
			ValidateStatusUpdate: validateStatus,
		})},
	}
}

func validate(m *migration) field.ErrorList {
	path := field.NewPath("spec", "resource")
	var errs field.ErrorList
	if m.Spec.Resource.Resource == "" {
		errs = append(errs, field.Required(path.Child("resource"), "resource is required"))
	} else {
		errs = append(errs, check.Strings(validation.IsDNS1035Label(m.Spec.Resource.Resource), path.Child("resource"), m.Spec.Resource.Resource)...)
	}
	if g := m.Spec.Resource.Group; g != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(g), path.Child("group"), g)...)
	}
	return errs
}

// validateStatus: a migration ends once, well or badly.
func validateStatus(_ context.Context, m, old *migration) field.ErrorList {
	path := field.NewPath("status")
	errs := metavalidation.ValidateConditions(m.Status.Conditions, path.Child("conditions"))
	if is(m, storagemigrationv1.MigrationSucceeded) && is(m, storagemigrationv1.MigrationFailed) {
		errs = append(errs, field.Invalid(path.Child("conditions"), m.Status.Conditions, "Both success and failed conditions cannot be true at the same time"))
	}
	for _, end := range []storagemigrationv1.MigrationConditionType{storagemigrationv1.MigrationSucceeded, storagemigrationv1.MigrationFailed} {
		if is(old, end) && !is(m, end) {
			errs = append(errs, field.Invalid(path.Child("conditions"), m.Status.Conditions, "Success condition cannot be set to false once it is true"))
		}
	}
	if v := old.Status.ResourceVersion; v != "" && v != m.Status.ResourceVersion {
		errs = append(errs, field.Invalid(path.Child("resourceVersion"), m.Status.ResourceVersion, "resourceVersion cannot be updated"))
	}
	return errs
}

func is(m *migration, t storagemigrationv1.MigrationConditionType) bool {
	for _, c := range m.Status.Conditions {
		if c.Type == string(t) && c.Status == metav1.ConditionTrue {
			return true
		}
	}
	return false
}
