package admission

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

var services = schema.GroupResource{Resource: "services"}

// newDenyExternalIPs lets only those give a Service external addresses who may write Services' status, by which they could draw any
// address's traffic anyway; a tenant could take over the traffic of others (CVE-2020-8554). What a Service has already may stay.
func newDenyExternalIPs(authz authorizer.Authorizer) admission.Interface {
	return validator{admission.NewHandler(admission.Create, admission.Update), func(ctx context.Context, a admission.Attributes) error {
		s, ok := object[*corev1.Service](a, services)
		if !ok {
			return nil
		}
		var had []string
		if old, ok := a.GetOldObject().(*corev1.Service); ok {
			had = old.Spec.ExternalIPs
		}
		if !slices.ContainsFunc(s.Spec.ExternalIPs, func(ip string) bool { return !slices.Contains(had, ip) }) {
			return nil
		}
		decision, _, err := authz.Authorize(ctx, authorizer.AttributesRecord{
			User: a.GetUserInfo(), Verb: "update", Namespace: a.GetNamespace(), APIVersion: "v1", Resource: "services", Subresource: "status", ResourceRequest: true,
		})
		if err == nil && decision == authorizer.DecisionAllow {
			return nil
		}
		return admission.NewForbidden(a, errors.New("spec.externalIPs may be set only by those who may update services/status"))
	}}
}
