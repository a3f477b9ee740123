package coordination

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
)

// Group is coordination.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        coordinationv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{coordinationv1.AddToScheme},
		Kinds:       []resource.Kind{lease()},
	}
}

func lease() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Lease", Plural: "leases", Namespaced: true, AllowCreateOnUpdate: true, ForbidUnconditionalUpdate: true,
		New:     func() runtime.Object { return &coordinationv1.Lease{} },
		NewList: func() runtime.Object { return &coordinationv1.LeaseList{} },
		Columns: []resource.Column{
			resource.Col("Holder", "string", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"], 0,
				func(l *coordinationv1.Lease) any { return cell.Or(l.Spec.HolderIdentity, "") }),
		},
	}, resource.Rules[*coordinationv1.Lease]{
		PrepareForCreate: func(_ context.Context, l *coordinationv1.Lease) { dropElection(l, &coordinationv1.Lease{}) },
		PrepareForUpdate: func(_ context.Context, l, old *coordinationv1.Lease) { dropElection(l, old) },
		Validate:         validateLease,
		ValidateUpdate: func(ctx context.Context, obj, _ *coordinationv1.Lease) field.ErrorList {
			return validateLease(ctx, obj)
		},
	})
}

// dropElection drops what only leader election by the server reads, which is off by default, unless it was there.
func dropElection(l, old *coordinationv1.Lease) {
	if old.Spec.Strategy == nil {
		l.Spec.Strategy = nil
	}
	if old.Spec.PreferredHolder == nil {
		l.Spec.PreferredHolder = nil
	}
}

func validateLease(_ context.Context, l *coordinationv1.Lease) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if d := l.Spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := l.Spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	if h := l.Spec.PreferredHolder; h != nil && *h != "" && cell.Or(l.Spec.Strategy, "") == "" {
		errs = append(errs, field.Forbidden(path.Child("preferredHolder"), "may only be specified if `strategy` is defined"))
	}
	return errs
}
