// Package policystatus says in the status of each ValidatingAdmissionPolicy what is doubtful about its expressions: fields that the
// kinds it matches do not have (KEP-3488, type checking). It never changes what a policy does.
package policystatus

import (
	"context"
	"time"

	registration "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	apply "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	"k8s.io/client-go/discovery"

	"keelson.dev/keelson/controlplane/controller"
)

// Deps of the controller; all are required.
type Deps struct {
	controller.Deps
	// Discovery finds the schemas of the kinds that policies match; Mapper their names.
	Discovery discovery.DiscoveryInterface
	Mapper    meta.RESTMapper
}

const manager = "validatingadmissionpolicy-status-controller"

// New returns the controller; keys are policies' names.
func New(d Deps) (*controller.Loop, error) {
	policies := d.Informers.Admissionregistration().V1().ValidatingAdmissionPolicies().Informer()
	checker := &validating.TypeChecker{SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: d.Discovery}, RestMapper: d.Mapper}
	loop := controller.NewLoop("policystatus", d.Log, 1, func(ctx context.Context, name string) (time.Duration, error) {
		p := controller.Get[registration.ValidatingAdmissionPolicy](policies, name)
		if p == nil || p.Status.ObservedGeneration == p.Generation {
			return 0, nil
		}
		_, err := d.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().ApplyStatus(ctx, status(p, checker.Check(p)),
			metav1.ApplyOptions{FieldManager: manager, Force: true})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	})
	return loop, controller.Watch(loop, policies, func(p, _ *registration.ValidatingAdmissionPolicy) []string { return []string{p.Name} })
}

// status is what is said of a policy at its generation.
func status(p *registration.ValidatingAdmissionPolicy, warnings []registration.ExpressionWarning) *apply.ValidatingAdmissionPolicyApplyConfiguration {
	checking := apply.TypeChecking()
	for _, w := range warnings {
		checking.WithExpressionWarnings(apply.ExpressionWarning().WithFieldRef(w.FieldRef).WithWarning(w.Warning))
	}
	return apply.ValidatingAdmissionPolicy(p.Name).WithStatus(apply.ValidatingAdmissionPolicyStatus().WithObservedGeneration(p.Generation).WithTypeChecking(checking))
}
