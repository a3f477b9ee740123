package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
)

// devices judges claims of devices by who asks and where, which upstream's validation does with the same answers: access that evades the
// allocation is for namespaces that are labelled for it; what a claim was given is the scheduler's to write, and what became of the
// devices their driver's, on its own node if it may no more (KEP-5018, KEP-4817).
type devices struct {
	cluster *cluster
	authz   authorizer.Authorizer
}

func newDevices(c *cluster, authz authorizer.Authorizer) admission.Interface {
	return validator{admission.NewHandler(admission.Create, admission.Update), devices{c, authz}.validate}
}

func (d devices) validate(ctx context.Context, a admission.Attributes) error {
	var errs field.ErrorList
	switch o := a.GetObject().(type) {
	case *resourcev1.ResourceClaimTemplate:
		errs = d.request(ctx, a, &o.Spec.Spec)
	case *resourcev1.ResourceClaim:
		old, _ := a.GetOldObject().(*resourcev1.ResourceClaim)
		switch {
		case a.GetSubresource() == "":
			errs = d.request(ctx, a, &o.Spec)
		case a.GetSubresource() == "status" && old != nil:
			errs = append(d.given(ctx, a, &o.Status, &old.Status), d.written(ctx, &o.Status, &old.Status)...)
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), errs)
	}
	return nil
}

// request judges a new claim: what is asked for does not change.
func (d devices) request(ctx context.Context, a admission.Attributes, s *resourcev1.ResourceClaimSpec) field.ErrorList {
	if a.GetOperation() != admission.Create {
		return nil
	}
	at := slices.IndexFunc(s.Devices.Requests, func(r resourcev1.DeviceRequest) bool { return r.Exactly != nil && isTrue(r.Exactly.AdminAccess) })
	return d.labelled(ctx, a.GetNamespace(), at, field.NewPath("spec", "devices", "requests"))
}

func (d devices) given(ctx context.Context, a admission.Attributes, s, old *resourcev1.ResourceClaimStatus) field.ErrorList {
	if evades(old) >= 0 {
		return nil // an allocation does not change
	}
	return d.labelled(ctx, a.GetNamespace(), evades(s), field.NewPath("status", "allocation", "devices", "results"))
}

func isTrue(b *bool) bool { return b != nil && *b }

// evades is the first result with administrative access, negative if there is none.
func evades(s *resourcev1.ResourceClaimStatus) int {
	if s.Allocation == nil {
		return -1
	}
	return slices.IndexFunc(s.Allocation.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool { return isTrue(r.AdminAccess) })
}

// labelled refuses element `at` of a list, if it is one, outside namespaces with the label.
func (d devices) labelled(ctx context.Context, namespace string, at int, list *field.Path) field.ErrorList {
	if at < 0 {
		return nil
	}
	path := list.Index(at).Child("adminAccess")
	ns, err := d.cluster.namespaces.Get(ctx, "", namespace)
	if err != nil {
		return field.ErrorList{field.InternalError(path, fmt.Errorf("could not retrieve namespace to verify admin access: %w", err))}
	}
	if ns.Labels[resourcev1.DRAAdminNamespaceLabelKey] != "true" {
		return field.ErrorList{field.Forbidden(path, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", resourcev1.DRAAdminNamespaceLabelKey))}
	}
	return nil
}

// written asks whether the requester may change those parts of a status that have changed.
func (d devices) written(ctx context.Context, s, old *resourcev1.ResourceClaimStatus) field.ErrorList {
	path := field.NewPath("status")
	binds := !equality.Semantic.DeepEqual(s.Allocation, old.Allocation) || !equality.Semantic.DeepEqual(s.ReservedFor, old.ReservedFor)
	drivers := changedDrivers(s.Devices, old.Devices)
	if !binds && len(drivers) == 0 {
		return nil
	}
	request, err := filters.GetAuthorizerAttributes(ctx)
	if err != nil {
		return field.ErrorList{field.InternalError(path, fmt.Errorf("cannot build authorizer attributes: %w", err))}
	}
	var errs field.ErrorList
	verb := request.GetVerb()
	if binds {
		if err := d.may(ctx, part{Attributes: request, verb: verb, subresource: resourcev1.SubresourceBinding}); err != nil {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("changing status.allocation or status.reservedFor requires resource=%q, verb=%q permission: %s", "resourceclaims/binding", verb, err)))
		}
	}
	verbs := []string{resourcev1.VerbPrefixArbitraryNode + verb}
	if isOf(request.GetUser(), placeOf(s.Allocation)) {
		verbs = []string{resourcev1.VerbPrefixAssociatedNode + verb, verbs[0]}
	}
	for _, driver := range drivers {
		var refusals []error
		for _, verb := range verbs {
			err := d.may(ctx, part{Attributes: request, verb: verb, subresource: resourcev1.SubresourceDriver, namespace: request.GetNamespace(), name: driver})
			refusals = append(refusals, err)
		}
		if !slices.Contains(refusals, nil) {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf(`changing status.devices requires resource="resourceclaims/driver", verb="%s" permission: %s`, verbs, refusals[0])))
		}
	}
	return errs
}

// part is a request for a part of a status, which is authorized as a subresource that is not served.
type part struct {
	authorizer.Attributes
	verb, subresource, namespace, name string
}

func (p part) GetVerb() string        { return p.verb }
func (p part) GetSubresource() string { return p.subresource }
func (p part) GetNamespace() string   { return p.namespace }
func (p part) GetName() string        { return p.name }

func (d devices) may(ctx context.Context, p part) error {
	decision, reason, err := d.authz.Authorize(ctx, p)
	if decision == authorizer.DecisionAllow {
		return nil
	}
	if err != nil && reason != "" {
		err = fmt.Errorf("%w: %s", err, reason)
	} else if err == nil {
		err = errors.New(reason)
	}
	return responsewriters.ForbiddenStatusError(p, err.Error())
}

// changedDrivers are those of which an entry has come, gone or changed, sorted.
func changedDrivers(now, was []resourcev1.AllocatedDeviceStatus) []string {
	type key struct{ driver, pool, device, share string }
	entries := func(list []resourcev1.AllocatedDeviceStatus) map[key]resourcev1.AllocatedDeviceStatus {
		out := map[key]resourcev1.AllocatedDeviceStatus{}
		for _, s := range list {
			k := key{driver: s.Driver, pool: s.Pool, device: s.Device}
			if s.ShareID != nil {
				k.share = *s.ShareID
			}
			out[k] = s
		}
		return out
	}
	changed, had := map[string]bool{}, entries(was)
	for k, s := range entries(now) {
		if old, ok := had[k]; !ok || !equality.Semantic.DeepEqual(old, s) {
			changed[k.driver] = true
		}
		delete(had, k)
	}
	for k := range had {
		changed[k.driver] = true
	}
	return slices.Sorted(maps.Keys(changed))
}

// placeOf is the node whose devices were allocated, "" if they are not of one.
func placeOf(a *resourcev1.AllocationResult) string {
	if a == nil || a.NodeSelector == nil || len(a.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	term := a.NodeSelector.NodeSelectorTerms[0]
	if len(term.MatchExpressions) > 0 || len(term.MatchFields) != 1 {
		return ""
	}
	f := term.MatchFields[0]
	if f.Key != metav1.ObjectNameField || f.Operator != corev1.NodeSelectorOpIn || len(f.Values) != 1 {
		return ""
	}
	return f.Values[0]
}

// isOf tells whether the user is a service account whose token was made for a pod of the node.
func isOf(u user.Info, node string) bool {
	if _, _, err := serviceaccount.SplitUsername(u.GetName()); err != nil || node == "" {
		return false
	}
	names := u.GetExtra()[serviceaccount.NodeNameKey]
	return len(names) == 1 && names[0] == node
}
