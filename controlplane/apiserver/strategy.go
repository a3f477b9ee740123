package apiserver

import (
	"context"
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
)

// strategy turns a row of the table into the behaviour that the generic registry asks for.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	kind *resource.Kind
	// apiVersions in which the kind is served, for the fields that a strategy resets.
	apiVersions []fieldpath.APIVersion
	// anyFinalizer: finalizers need not be qualified by a domain.
	anyFinalizer bool
}

var (
	_ rest.RESTCreateStrategy              = strategy{}
	_ rest.RESTUpdateStrategy              = strategy{}
	_ rest.GarbageCollectionDeleteStrategy = strategy{}
	_ rest.ResetFieldsStrategy             = strategy{}
	_ rest.DeclarativeValidationStrategy   = strategy{}
)

func (s strategy) NamespaceScoped() bool                    { return s.kind.Namespaced }
func (s strategy) AllowCreateOnUpdate(context.Context) bool { return s.kind.AllowCreateOnUpdate }
func (s strategy) AllowUnconditionalUpdate(context.Context) bool {
	return !s.kind.ForbidUnconditionalUpdate
}
func (s strategy) Canonicalize(runtime.Object) {}
func (s strategy) WarningsOnUpdate(ctx context.Context, obj, old runtime.Object) []string {
	return s.warnings(ctx, obj, old)
}

func (s strategy) WarningsOnCreate(ctx context.Context, obj runtime.Object) []string {
	return s.warnings(ctx, obj, nil)
}

func (s strategy) warnings(ctx context.Context, obj, old runtime.Object) []string {
	if s.kind.Warnings == nil {
		return nil
	}
	return s.kind.Warnings(ctx, obj, old)
}

func (s strategy) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	if s.kind.HasStatus {
		clearStatus(obj)
	}
	if m, err := meta.Accessor(obj); err == nil && s.kind.HasGeneration {
		m.SetGeneration(1)
	}
	if s.kind.PrepareForCreate != nil {
		s.kind.PrepareForCreate(ctx, obj)
	}
}

func (s strategy) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	if s.kind.HasStatus {
		copyStatus(obj, old)
	}
	if s.kind.PrepareForUpdate != nil {
		s.kind.PrepareForUpdate(ctx, obj, old)
	}
	if s.kind.HasGeneration {
		bumpGeneration(obj, old)
	}
}

func (s strategy) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	errs := s.validateMeta(obj)
	if s.kind.Validate != nil {
		errs = append(errs, s.kind.Validate(ctx, obj)...)
	}
	return errs
}

func (s strategy) validateMeta(obj runtime.Object) field.ErrorList {
	m, err := meta.Accessor(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(field.NewPath("metadata"), err)}
	}
	check := s.kind.ValidateName
	if check == nil {
		check = validation.NameIsDNSSubdomain
	}
	return validation.ValidateObjectMetaAccessor(m, s.kind.Namespaced, check, field.NewPath("metadata"))
}

// ValidateUpdate: metadata is checked by the registry before this is called.
func (s strategy) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	switch {
	case s.kind.ValidateUpdate != nil:
		return s.kind.ValidateUpdate(ctx, obj, old)
	case s.kind.Validate != nil:
		return s.kind.Validate(ctx, obj)
	}
	return nil
}

// ValidateDeclaratively is called last, with all errors. No rules are declared here; what remains of upstream's step is
// the form of its result. Rules of all kinds and subresources have their place here, too.
func (s strategy) ValidateDeclaratively(_ context.Context, obj, _ runtime.Object, errs field.ErrorList, _ operation.Type, _ rest.DeclarativeValidationConfig) field.ErrorList {
	if !s.anyFinalizer {
		errs = append(errs, check.Finalizers(obj)...)
	}
	return check.Tidy(errs)
}

func (s strategy) DeclarativeValidationConfig(context.Context, runtime.Object, runtime.Object) rest.DeclarativeValidationConfig {
	return rest.DeclarativeValidationConfig{}
}

func (s strategy) DefaultGarbageCollectionPolicy(context.Context) rest.GarbageCollectionPolicy {
	switch {
	case s.kind.TTL != nil: // what is forgotten by itself owns nothing
		return rest.Unsupported
	case s.kind.OrphanByDefault:
		return rest.OrphanDependents
	}
	return rest.DeleteDependents
}

func (s strategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	if !s.kind.HasStatus {
		return nil
	}
	return s.reset("status")
}

func (s strategy) reset(name string) map[fieldpath.APIVersion]*fieldpath.Set {
	m := map[fieldpath.APIVersion]*fieldpath.Set{}
	for _, v := range s.apiVersions {
		m[v] = fieldpath.NewSet(fieldpath.MakePathOrDie(name))
	}
	return m
}

// gracefulStrategy is for kinds whose objects are deleted in two steps.
type gracefulStrategy struct{ strategy }

func (s gracefulStrategy) CheckGracefulDelete(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool {
	return s.kind.CheckGracefulDelete(ctx, obj, options)
}

// statusStrategy lets only the status and metadata through: upstream lets a status writer annotate and say who owns the object.
type statusStrategy struct{ strategy }

func (s statusStrategy) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	keepButStatus(obj, old)
	if s.kind.PrepareStatusUpdate != nil {
		s.kind.PrepareStatusUpdate(ctx, obj, old)
	}
}

func (s statusStrategy) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	if s.kind.ValidateStatusUpdate == nil {
		return nil
	}
	return s.kind.ValidateStatusUpdate(ctx, obj, old)
}

func (s statusStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

func (s statusStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return s.reset("spec")
}

// The kinds of the API are structs with TypeMeta, ObjectMeta, and further fields of which one may be Status. The
// functions below rely on that and on nothing else of the type.

func clearStatus(obj runtime.Object) {
	f := reflect.ValueOf(obj).Elem().FieldByName("Status")
	f.SetZero()
}

func copyStatus(obj, old runtime.Object) {
	reflect.ValueOf(obj).Elem().FieldByName("Status").Set(reflect.ValueOf(old.DeepCopyObject()).Elem().FieldByName("Status"))
}

// keepButStatus sets every field of obj but its metadata and status to old's.
func keepButStatus(obj, old runtime.Object) {
	dst, src := reflect.ValueOf(obj).Elem(), reflect.ValueOf(old.DeepCopyObject()).Elem()
	for i := range dst.NumField() {
		if name := dst.Type().Field(i).Name; !metaOrStatus(name) {
			dst.Field(i).Set(src.Field(i))
		}
	}
}

// bumpGeneration counts changes of what a user asks for: every field but metadata and status.
func bumpGeneration(obj, old runtime.Object) {
	a, b := reflect.ValueOf(obj).Elem(), reflect.ValueOf(old).Elem()
	for i := range a.NumField() {
		if metaOrStatus(a.Type().Field(i).Name) {
			continue
		}
		if !equality.Semantic.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			n, _ := meta.Accessor(obj)
			o, _ := meta.Accessor(old)
			n.SetGeneration(o.GetGeneration() + 1)
			return
		}
	}
}

func metaOrStatus(field string) bool {
	return field == "TypeMeta" || field == "ObjectMeta" || field == "Status"
}
