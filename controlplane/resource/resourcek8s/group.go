package resourcek8s

import (
	"context"
	"fmt"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	volumeclaim "keelson.dev/keelson/controlplane/resource/claim"
)

// Group is resource.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        resourcev1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{resourcev1.AddToScheme},
		Kinds:       []resource.Kind{deviceClass(), taintRule(), claim(), claimTemplate(), slice()},
	}
}

func deviceClass() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "DeviceClass", Plural: "deviceclasses", HasGeneration: true,
		ValidateName: className,
		New:          func() runtime.Object { return &resourcev1.DeviceClass{} },
		NewList:      func() runtime.Object { return &resourcev1.DeviceClassList{} },
	}, resource.Rules[*resourcev1.DeviceClass]{
		Validate: func(_ context.Context, c *resourcev1.DeviceClass) field.ErrorList {
			return validateClass(&c.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, c, old *resourcev1.DeviceClass) field.ErrorList {
			return validateClass(&c.Spec, &old.Spec, field.NewPath("spec"))
		},
	})
}

// className is the rule of most names in the words of those that stand with the type.
func className(name string, prefix bool) []string {
	if prefix {
		return apivalidation.NameIsDNSSubdomain(name, prefix)
	}
	return content.IsDNS1123Subdomain(name)
}

func claim() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ResourceClaim", Plural: "resourceclaims", Namespaced: true, HasStatus: true,
		New:     func() runtime.Object { return &resourcev1.ResourceClaim{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceClaimList{} },
		Columns: []resource.Column{
			resource.Col("State", "string", "A summary of the current state (allocated, pending, reserved, etc.).", 0,
				func(c *resourcev1.ResourceClaim) any { return state(c) }),
		},
	}, resource.Rules[*resourcev1.ResourceClaim]{
		Default: func(c *resourcev1.ResourceClaim) {
			defaultRequests(&c.Spec)
			for _, r := range resultsOf(&c.Status) {
				defaultTolerations(r.Tolerations)
			}
		},
		Validate: func(_ context.Context, c *resourcev1.ResourceClaim) field.ErrorList {
			return validateClaim(&c.Spec.Devices, field.NewPath("spec", "devices"))
		},
		ValidateUpdate: func(_ context.Context, c, old *resourcev1.ResourceClaim) field.ErrorList {
			if check.Same(c.Spec, old.Spec) {
				return nil
			}
			return field.ErrorList{field.Invalid(field.NewPath("spec"), nil, apivalidation.FieldImmutableErrorMsg)}
		},
		PrepareForCreate: func(_ context.Context, c *resourcev1.ResourceClaim) { dropDerived(&c.Spec) },
		PrepareForUpdate: func(_ context.Context, c, _ *resourcev1.ResourceClaim) { dropDerived(&c.Spec) },
		PrepareStatusUpdate: func(_ context.Context, c, old *resourcev1.ResourceClaim) {
			metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &old.ObjectMeta)
			dropSkipped(&c.Status, &old.Status)
			dropGivenBack(c, old)
		},
		ValidateStatusUpdate: validateClaimStatus,
	})
}

func claimTemplate() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ResourceClaimTemplate", Plural: "resourceclaimtemplates", Namespaced: true,
		New:     func() runtime.Object { return &resourcev1.ResourceClaimTemplate{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceClaimTemplateList{} },
	}, resource.Rules[*resourcev1.ResourceClaimTemplate]{
		Default:          func(t *resourcev1.ResourceClaimTemplate) { defaultRequests(&t.Spec.Spec) },
		PrepareForCreate: func(_ context.Context, t *resourcev1.ResourceClaimTemplate) { dropDerived(&t.Spec.Spec) },
		PrepareForUpdate: func(_ context.Context, t, _ *resourcev1.ResourceClaimTemplate) { dropDerived(&t.Spec.Spec) },
		Validate: func(_ context.Context, t *resourcev1.ResourceClaimTemplate) field.ErrorList {
			return validateTemplate(&t.Spec, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
			path := field.NewPath("spec")
			return append(validateTemplate(&t.Spec, path), check.Immutable(t.Spec, old.Spec, path)...)
		},
	})
}

func validateTemplate(s *resourcev1.ResourceClaimTemplateSpec, path *field.Path) field.ErrorList {
	errs := volumeclaim.ValidateTemplateMeta(s.ObjectMeta, path.Child("metadata"))
	return append(errs, validateClaim(&s.Spec.Devices, path.Child("spec", "devices"))...)
}

func slice() resource.Kind {
	doc := resourcev1.ResourceSliceSpec{}.SwaggerDoc()
	return resource.Of(resource.Kind{
		Kind: "ResourceSlice", Plural: "resourceslices",
		New:     func() runtime.Object { return &resourcev1.ResourceSlice{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceSliceList{} },
		Columns: []resource.Column{
			resource.Col("Node", "string", doc["nodeName"], 0, func(s *resourcev1.ResourceSlice) any { return ptr.Deref(s.Spec.NodeName, "") }),
			resource.Col("Driver", "string", doc["driver"], 0, func(s *resourcev1.ResourceSlice) any { return s.Spec.Driver }),
			resource.Col("Pool", "string", resourcev1.ResourcePool{}.SwaggerDoc()["name"], 0, func(s *resourcev1.ResourceSlice) any { return s.Spec.Pool.Name }),
		},
	}, resource.Rules[*resourcev1.ResourceSlice]{
		PrepareForCreate: func(_ context.Context, s *resourcev1.ResourceSlice) {
			s.Generation = 1
			dropOff(&s.Spec, &resourcev1.ResourceSliceSpec{})
			stampSlice(s)
		},
		PrepareForUpdate: func(_ context.Context, s, old *resourcev1.ResourceSlice) {
			if !check.Same(s.Spec, old.Spec) { // as it was sent: what is dropped counts
				s.Generation = old.Generation + 1
			}
			dropOff(&s.Spec, &old.Spec)
			stampSlice(s)
		},
		Warnings: func(_ context.Context, s, _ *resourcev1.ResourceSlice) []string {
			if d := s.Spec.Driver; d != strings.ToLower(d) {
				return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", d)}
			}
			return nil
		},
		Validate: func(_ context.Context, s *resourcev1.ResourceSlice) field.ErrorList {
			return validateSlice(&s.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, s, old *resourcev1.ResourceSlice) field.ErrorList {
			path := field.NewPath("spec")
			errs := validateSlice(&s.Spec, old.Spec.Devices, path)
			errs = append(errs, check.Immutable(s.Spec.Driver, old.Spec.Driver, path.Child("driver"))...)
			errs = append(errs, check.Immutable(s.Spec.Pool.Name, old.Spec.Pool.Name, path.Child("pool", "name"))...)
			errs = append(errs, check.Immutable(s.Spec.NodeName, old.Spec.NodeName, path.Child("nodeName"))...)
			return errs
		},
		Fields: func(s *resourcev1.ResourceSlice) fields.Set {
			return fields.Set{resourcev1.ResourceSliceSelectorNodeName: ptr.Deref(s.Spec.NodeName, ""),
				resourcev1.ResourceSliceSelectorDriver: s.Spec.Driver, resourcev1.ResourceSliceSelectorPoolName: s.Spec.Pool.Name}
		},
	})
}

func taintRule() resource.Kind {
	doc := resourcev1.DeviceTaint{}.SwaggerDoc()
	col := func(name, documented string, value func(*resourcev1.DeviceTaint) string) resource.Column {
		return resource.Col(name, "string", doc[documented], 0, func(r *resourcev1.DeviceTaintRule) any { return value(&r.Spec.Taint) })
	}
	return resource.Of(resource.Kind{
		Kind: "DeviceTaintRule", Plural: "devicetaintrules", HasStatus: true, HasGeneration: true, ForbidUnconditionalUpdate: true,
		New:     func() runtime.Object { return &resourcev1.DeviceTaintRule{} },
		NewList: func() runtime.Object { return &resourcev1.DeviceTaintRuleList{} },
		Columns: []resource.Column{
			col("Key", "key", func(t *resourcev1.DeviceTaint) string { return t.Key }),
			col("Value", "value", func(t *resourcev1.DeviceTaint) string { return t.Value }),
			col("Effect", "effect", func(t *resourcev1.DeviceTaint) string { return string(t.Effect) }),
			col("TimeAdded", "timeAdded", func(t *resourcev1.DeviceTaint) string {
				if t.TimeAdded == nil {
					return ""
				}
				return cell.Since(*t.TimeAdded)
			}),
		},
	}, resource.Rules[*resourcev1.DeviceTaintRule]{
		PrepareForCreate: func(_ context.Context, r *resourcev1.DeviceTaintRule) { stamp(&r.Spec.Taint) },
		PrepareForUpdate: func(_ context.Context, r, old *resourcev1.DeviceTaintRule) {
			// A taint of another effect begins to count anew.
			if r.Spec.Taint.Effect != old.Spec.Taint.Effect && check.Same(r.Spec.Taint.TimeAdded, old.Spec.Taint.TimeAdded) {
				r.Spec.Taint.TimeAdded = nil
			}
			stamp(&r.Spec.Taint)
		},
		PrepareStatusUpdate: func(_ context.Context, r, old *resourcev1.DeviceTaintRule) {
			metav1.ResetObjectMetaForStatus(&r.ObjectMeta, &old.ObjectMeta)
		},
		Validate: func(_ context.Context, r *resourcev1.DeviceTaintRule) field.ErrorList {
			return validateTaintRule(&r.Spec, field.NewPath("spec"))
		},
		ValidateStatusUpdate: func(_ context.Context, r, _ *resourcev1.DeviceTaintRule) field.ErrorList {
			path := field.NewPath("status", "conditions")
			errs := metavalidation.ValidateConditions(r.Status.Conditions, path)
			if n := len(r.Status.Conditions); n > resourcev1.DeviceTaintRuleStatusMaxConditions {
				errs = append(errs, field.TooMany(path, n, resourcev1.DeviceTaintRuleStatusMaxConditions))
			}
			return errs
		},
	})
}

// dropDerived drops derived attributes, which are off by default.
func dropDerived(s *resourcev1.ResourceClaimSpec) {
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if r.Exactly != nil {
			r.Exactly.DerivedAttributes = nil
		}
		for j := range r.FirstAvailable {
			r.FirstAvailable[j].DerivedAttributes = nil
		}
	}
}

// dropOff drops what is off by default from a slice, unless it was there.
func dropOff(s, old *resourcev1.ResourceSliceSpec) {
	if old.SkipNodeOperations == nil {
		s.SkipNodeOperations = nil
	}
	if old.PartitionTypeAttribute == nil {
		s.PartitionTypeAttribute = nil
	}
	if !slices.ContainsFunc(old.Devices, func(d resourcev1.Device) bool { return d.NodeAllocatableResources != nil }) {
		for i := range s.Devices {
			s.Devices[i].NodeAllocatableResources = nil
		}
	}
	if !slices.ContainsFunc(old.Devices, hasCompatibility) {
		for i := range s.Devices {
			for j := range s.Devices[i].ConsumesCounters {
				s.Devices[i].ConsumesCounters[j].CompatibilityGroups = nil
			}
		}
	}
	if slices.ContainsFunc(old.Devices, hasLists) {
		return
	}
	for i := range s.Devices {
		for name, a := range s.Devices[i].Attributes {
			a.IntValues, a.BoolValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			s.Devices[i].Attributes[name] = a
		}
	}
}

// defaultRequests: a request that does not say how many devices means one.
func defaultRequests(s *resourcev1.ResourceClaimSpec) {
	one := func(mode *resourcev1.DeviceAllocationMode, count *int64) {
		if *mode == "" {
			*mode = resourcev1.DeviceAllocationModeExactCount
		}
		if *mode == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if r.Exactly != nil {
			one(&r.Exactly.AllocationMode, &r.Exactly.Count)
			defaultTolerations(r.Exactly.Tolerations)
		}
		for j := range r.FirstAvailable {
			sub := &r.FirstAvailable[j]
			one(&sub.AllocationMode, &sub.Count)
			defaultTolerations(sub.Tolerations)
		}
	}
}

func defaultTolerations(list []resourcev1.DeviceToleration) {
	for i := range list {
		if list[i].Operator == "" {
			list[i].Operator = resourcev1.DeviceTolerationOpEqual
		}
	}
}

func state(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case c.Status.Allocation != nil:
		states = append(states, "allocated")
		if len(c.Status.ReservedFor) > 0 {
			states = append(states, "reserved")
		}
	case c.DeletionTimestamp == nil:
		states = append(states, "pending")
	}
	return strings.Join(states, ",")
}
