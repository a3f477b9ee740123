package quota

import (
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	apiquota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
)

// Classes lists the cluster's device classes, which give devices names that a quota may count them by.
type Classes func() []*resourcev1.DeviceClass

// New returns the evaluators of all resources that quota measures in more than number. Lister is needed for UsageStats
// only; admission gives nil.
func New(lister apiquota.ListerForResourceFunc, classes Classes, now func() time.Time) apiquota.Configuration {
	list := func(resource string) generic.ListFuncByNamespace {
		return generic.ListResourceUsingListerFunc(lister, corev1.SchemeGroupVersion.WithResource(resource))
	}
	evaluators := []apiquota.Evaluator{
		pods(list("pods"), now), services(list("services")), claims(list("persistentvolumeclaims")),
		devices(generic.ListResourceUsingListerFunc(lister, resourcev1.SchemeGroupVersion.WithResource("resourceclaims")), classes),
	}
	// Kinds that were counted under a name of their own before every kind could be, as count/<resource>.
	for resource, alias := range map[string]corev1.ResourceName{
		"configmaps":             corev1.ResourceConfigMaps,
		"resourcequotas":         corev1.ResourceQuotas,
		"replicationcontrollers": corev1.ResourceReplicationControllers,
		"secrets":                corev1.ResourceSecrets,
	} {
		evaluators = append(evaluators, generic.NewObjectCountEvaluator(schema.GroupResource{Resource: resource}, list(resource), alias))
	}
	return generic.NewConfiguration(evaluators, ignored())
}

// ignored are what is not stored, and events, whose number no user controls.
func ignored() map[schema.GroupResource]struct{} {
	m := map[schema.GroupResource]struct{}{}
	for group, resources := range map[string][]string{
		"":                         {"bindings", "componentstatuses", "events"},
		eventsv1.GroupName:         {"events"},
		authenticationv1.GroupName: {"tokenreviews", "selfsubjectreviews"},
		authorizationv1.GroupName:  {"subjectaccessreviews", "selfsubjectaccessreviews", "localsubjectaccessreviews", "selfsubjectrulesreviews"},
	} {
		for _, r := range resources {
			m[schema.GroupResource{Group: group, Resource: r}] = struct{}{}
		}
	}
	return m
}

// evaluator is a quota evaluator made of functions over the object's own type.
type evaluator[T runtime.Object] struct {
	resource   schema.GroupResource
	handles    func(admission.Attributes) bool
	constraint func(required []corev1.ResourceName, obj T) error
	matching   func([]corev1.ResourceName) []corev1.ResourceName
	scope      func(corev1.ScopedResourceSelectorRequirement, T) (bool, error)
	usage      func(T) corev1.ResourceList
	list       generic.ListFuncByNamespace
}

func (e evaluator[T]) GroupResource() schema.GroupResource { return e.resource }
func (e evaluator[T]) Handles(a admission.Attributes) bool { return e.handles(a) }
func (e evaluator[T]) MatchingResources(in []corev1.ResourceName) []corev1.ResourceName {
	return e.matching(in)
}

func (e evaluator[T]) of(item runtime.Object) (T, error) {
	t, ok := item.(T)
	if !ok {
		return t, fmt.Errorf("quota of %s: got a %T", e.resource, item)
	}
	return t, nil
}

func (e evaluator[T]) Constraints(required []corev1.ResourceName, item runtime.Object) error {
	t, err := e.of(item)
	if err != nil || e.constraint == nil {
		return err
	}
	return e.constraint(required, t)
}

func (e evaluator[T]) matchesScope(s corev1.ScopedResourceSelectorRequirement, item runtime.Object) (bool, error) {
	t, err := e.of(item)
	if err != nil || e.scope == nil {
		return false, err
	}
	return e.scope(s, t)
}

func (e evaluator[T]) Matches(q *corev1.ResourceQuota, item runtime.Object) (bool, error) {
	return generic.Matches(q, item, e.MatchingResources, e.matchesScope)
}

func (e evaluator[T]) MatchingScopes(item runtime.Object, scopes []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	matched := []corev1.ScopedResourceSelectorRequirement{}
	for _, s := range scopes {
		ok, err := e.matchesScope(s, item)
		if err != nil {
			return nil, fmt.Errorf("error on matching scope %v: %w", s, err)
		}
		if ok {
			matched = append(matched, s)
		}
	}
	return matched, nil
}

// UncoveredQuotaScopes returns the limited scopes of which no quota matched.
func (e evaluator[T]) UncoveredQuotaScopes(limited, matched []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	uncovered := []corev1.ScopedResourceSelectorRequirement{}
	for _, l := range limited {
		if !slices.ContainsFunc(matched, func(m corev1.ScopedResourceSelectorRequirement) bool { return m.ScopeName == l.ScopeName }) {
			uncovered = append(uncovered, l)
		}
	}
	return uncovered, nil
}

func (e evaluator[T]) Usage(item runtime.Object) (corev1.ResourceList, error) {
	t, err := e.of(item)
	if err != nil {
		return corev1.ResourceList{}, err
	}
	return e.usage(t), nil
}

func (e evaluator[T]) UsageStats(options apiquota.UsageStatsOptions) (apiquota.UsageStats, error) {
	return generic.CalculateUsageStats(options, e.list, e.matchesScope, e.Usage)
}

// selects says whether a scope's operator and values hold for a value, "" meaning none.
func selects(s corev1.ScopedResourceSelectorRequirement, value string) (bool, error) {
	if s.Operator == corev1.ScopeSelectorOpExists {
		return value != "", nil
	}
	selector, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: string(s.ScopeName), Operator: metav1.LabelSelectorOperator(s.Operator), Values: s.Values},
	}})
	if err != nil {
		return false, fmt.Errorf("failed to parse and convert selector: %w", err)
	}
	set := labels.Set{}
	if value != "" {
		set[string(s.ScopeName)] = value
	}
	return selector.Matches(set), nil
}

func number(n int) apiresource.Quantity {
	return *apiresource.NewQuantity(int64(n), apiresource.DecimalSI)
}

func counted(resource string) corev1.ResourceName {
	return generic.ObjectCountQuotaResourceNameFor(schema.GroupResource{Resource: resource})
}
