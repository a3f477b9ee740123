package storagemigration

import (
	"context"
	"regexp"
	"strings"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
)

// versionForm is a resourceVersion: a number that begins with no zero.
var versionForm = regexp.MustCompile(`^[1-9][0-9]*$`)

type migration = storagemigrationv1.StorageVersionMigration

// Group is storagemigration.k8s.io.
func Group() resource.Group {
	name := cell.Name()
	name.Format = ""
	return resource.Group{
		Name:        storagemigrationv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{storagemigrationv1.AddToScheme},
		Kinds: []resource.Kind{resource.Of(resource.Kind{
			Kind: "StorageVersionMigration", Plural: "storageversionmigrations", HasStatus: true,
			ForbidUnconditionalUpdate: true, NoAge: true,
			New:     func() runtime.Object { return &migration{} },
			NewList: func() runtime.Object { return &storagemigrationv1.StorageVersionMigrationList{} },
			Columns: []resource.Column{
				name,
				resource.Col("Resource", "string", "GroupResource to migrate", 0, func(m *migration) any {
					gr := metav1.GroupResource(m.Spec.Resource)
					return gr.String()
				}),
				resource.Col("Status", "string", "Status of the migration", 0, state),
			},
		}, resource.Rules[*migration]{
			Validate: func(_ context.Context, m *migration) field.ErrorList { return validate(m) },
			ValidateUpdate: func(_ context.Context, m, old *migration) field.ErrorList {
				errs := validate(m)
				if m.Spec != old.Spec {
					errs = append(errs, field.Invalid(field.NewPath("spec"), m.Spec, apivalidation.FieldImmutableErrorMsg))
				}
				return errs
			},
			PrepareStatusUpdate: func(_ context.Context, m, old *migration) {
				metav1.ResetObjectMetaForStatus(&m.ObjectMeta, &old.ObjectMeta)
			},
			ValidateStatusUpdate: validateStatus,
		})},
	}
}

func validate(m *migration) field.ErrorList {
	path := field.NewPath("spec", "resource")
	var errs field.ErrorList
	if m.Spec.Resource.Resource == "" {
		errs = append(errs, field.Required(path.Child("resource"), "resource is required to be set"))
	} else {
		errs = append(errs, joined(validation.IsDNS1035Label(m.Spec.Resource.Resource), path.Child("resource"), m.Spec.Resource.Resource)...)
	}
	if g := m.Spec.Resource.Group; g != "" {
		errs = append(errs, joined(validation.IsDNS1123Subdomain(g), path.Child("group"), g)...)
	}
	return errs
}

// joined is one error for all that is wrong with a value.
func joined(messages []string, path *field.Path, value string) field.ErrorList {
	if len(messages) == 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, strings.Join(messages, ","))}
}

// state is the last of the conditions that hold.
func state(m *migration) any {
	out := "Unknown"
	for _, c := range m.Status.Conditions {
		switch t := storagemigrationv1.MigrationConditionType(c.Type); t {
		case storagemigrationv1.MigrationRunning, storagemigrationv1.MigrationFailed, storagemigrationv1.MigrationSucceeded:
			if c.Status == metav1.ConditionTrue {
				out = c.Type
			}
		}
	}
	return out
}

// validateStatus: a migration ends once, well or badly.
func validateStatus(_ context.Context, m, old *migration) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	if v := m.Status.ResourceVersion; v != "" && !versionForm.MatchString(v) {
		errs = append(errs, field.Invalid(path.Child("resourceVersion"), v, "resource version is not well formed: "+v))
	}
	errs = append(errs, metavalidation.ValidateConditions(m.Status.Conditions, path.Child("conditions"))...)
	if is(m, storagemigrationv1.MigrationSucceeded) && is(m, storagemigrationv1.MigrationFailed) {
		errs = append(errs, field.Invalid(path.Child("conditions"), m.Status.Conditions, "Both success and failed conditions cannot be true at the same time"))
	}
	for end, words := range map[storagemigrationv1.MigrationConditionType]string{
		storagemigrationv1.MigrationSucceeded: "Success", storagemigrationv1.MigrationFailed: "Failed"} {
		if is(old, end) && !is(m, end) {
			errs = append(errs, field.Invalid(path.Child("conditions"), m.Status.Conditions, words+" condition cannot be set to false once it is true"))
		}
	}
	if v := old.Status.ResourceVersion; v != "" && v != m.Status.ResourceVersion {
		errs = append(errs, field.Invalid(path.Child("resourceVersion"), m.Status.ResourceVersion, apivalidation.FieldImmutableErrorMsg))
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
