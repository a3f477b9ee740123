package resourcek8s

import (
	"slices"
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(),
		resourcetest.Row{Plural: "deviceclasses", Kind: "DeviceClass"},
		resourcetest.Row{Plural: "devicetaintrules", Kind: "DeviceTaintRule"},
		resourcetest.Row{Plural: "resourceclaims", Kind: "ResourceClaim", Namespaced: true},
		resourcetest.Row{Plural: "resourceclaimtemplates", Kind: "ResourceClaimTemplate", Namespaced: true},
		resourcetest.Row{Plural: "resourceslices", Kind: "ResourceSlice"})
}

func newClaim(t *testing.T, edit func(*resourcev1.DeviceClaim)) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
		Requests: []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu.example.com"}}},
	}}}
	if edit != nil {
		edit(&c.Spec.Devices)
	}
	resourcetest.Kind(t, Group(), "ResourceClaim").Default(c)
	return c
}

func TestDefaults(t *testing.T) {
	c := newClaim(t, nil)
	if e := c.Spec.Devices.Requests[0].Exactly; e.AllocationMode != "ExactCount" || e.Count != 1 {
		t.Errorf("%+v", e)
	}
	resourcetest.CheckDefaults(t, resourcetest.Kind(t, Group(), "ResourceClaim"), newClaim(t, nil), newClaim(t, nil))
}

func TestValidateClaim(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ResourceClaim")
	for _, c := range []struct {
		edit func(*resourcev1.DeviceClaim)
		want []string
	}{
		{nil, nil},
		{func(d *resourcev1.DeviceClaim) { d.Requests[0].Exactly.DeviceClassName = "" }, []string{"spec.devices.requests[0].exactly.deviceClassName: Required value"}},
		{func(d *resourcev1.DeviceClaim) { d.Requests[0].Exactly = nil }, []string{"spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"}},
		{func(d *resourcev1.DeviceClaim) {
			d.Requests[0].Exactly.AllocationMode, d.Requests[0].Exactly.Count = "All", 2
		}, []string{"must not be specified when allocationMode is 'All'"}},
		{func(d *resourcev1.DeviceClaim) { d.Requests = append(d.Requests, d.Requests[0]) }, []string{`spec.devices.requests[1]: Duplicate value: {"name":"gpu","exactly":{"deviceClassName":"gpu.example.com","allocationMode":"ExactCount","count":1}}`}},
		{func(d *resourcev1.DeviceClaim) {
			d.Constraints = []resourcev1.DeviceConstraint{{Requests: []string{"cpu"}, MatchAttribute: ptr.To(resourcev1.FullyQualifiedName("numa"))}}
		}, []string{"spec.devices.constraints[0].requests[0]: Invalid value: \"cpu\": must be the name of a request in the claim", "a fully qualified name must be a domain and a name separated by a slash"}},
		{func(d *resourcev1.DeviceClaim) {
			d.Constraints = []resourcev1.DeviceConstraint{
				{MatchAttribute: ptr.To(resourcev1.FullyQualifiedName("d.example.com/numa")), DistinctAttribute: ptr.To(resourcev1.FullyQualifiedName("../x"))}, {}}
		}, []string{`spec.devices.constraints[0].distinctAttribute: Invalid value: "..": prefix: a lowercase RFC 1123 subdomain`,
			`spec.devices.constraints[1]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required`}},
		{func(d *resourcev1.DeviceClaim) {
			d.Requests[0].FirstAvailable = []resourcev1.DeviceSubRequest{{AllocationMode: "x", Tolerations: []resourcev1.DeviceToleration{{Value: "a b", Effect: "x"}}}}
		}, []string{"spec.devices.requests[0].firstAvailable[0].deviceClassName: Required value", `spec.devices.requests[0].firstAvailable[0].allocationMode: Unsupported value: "x"`,
			`spec.devices.requests[0].firstAvailable[0].tolerations[0].effect: Unsupported value: "x"`,
			"spec.devices.requests[0]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"}},
		{func(d *resourcev1.DeviceClaim) {
			d.Requests[0].Exactly, d.Requests[0].FirstAvailable = nil, []resourcev1.DeviceSubRequest{{Name: "a_b", DeviceClassName: strings.Repeat("c", 254)}}
		}, []string{"spec.devices.requests[0].firstAvailable[0].deviceClassName: Invalid value: \"" + strings.Repeat("c", 254) + "\": must be no more than 253 bytes",
			`spec.devices.requests[0].firstAvailable[0].name: Invalid value: "a_b": a lowercase RFC 1123 label`}},
		{func(d *resourcev1.DeviceClaim) {
			d.Requests[0].Name = "a/b"
			d.Constraints = []resourcev1.DeviceConstraint{{Requests: []string{"a/b"}, MatchAttribute: ptr.To(resourcev1.FullyQualifiedName("d.example.com/numa"))}}
		}, []string{`spec.devices.requests[0].name: Invalid value: "a/b"`, `spec.devices.constraints[0].requests[0]: Invalid value: "a/b": must be the name of a request`}},
		{func(d *resourcev1.DeviceClaim) { d.Requests = slices.Repeat(d.Requests, 33) }, []string{"spec.devices.requests: Too many: 33: must have at most 32 items"}},
		{func(d *resourcev1.DeviceClaim) { d.Config = []resourcev1.DeviceClaimConfiguration{{}} }, []string{"spec.devices.config[0].opaque: Required value"}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), newClaim(t, c.edit)), c.want...)
	}
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), newClaim(t, func(d *resourcev1.DeviceClaim) { d.Requests[0].Name = "x" }), newClaim(t, nil)),
		"spec: Invalid value: null: field is immutable")
}

func TestValidateClaimStatus(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ResourceClaim")
	pending := newClaim(t, nil)
	pod := resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "p", UID: "u"}
	allocated := newClaim(t, nil)
	allocated.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
		Results: []resourcev1.DeviceRequestAllocationResult{{Request: "gpu", Driver: "d.example.com", Pool: "n1/p", Device: "d0"}}}}
	allocated.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{pod}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), allocated, pending))
	reserved := newClaim(t, nil)
	reserved.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{pod, pod}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), reserved, pending),
		`status.reservedFor[1]: Duplicate value: {"resource":"pods","name":"p","uid":"u"}`, "status.reservedFor: Forbidden: may not be specified when `allocated` is not set")
	moved := allocated.DeepCopy()
	moved.Status.Allocation.Devices.Results[0].Device = "d1"
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), moved, allocated), "status.allocation: Invalid value: null: field cannot be modified once set")
	going := allocated.DeepCopy()
	going.DeletionTimestamp = &metav1.Time{}
	going.Status.ReservedFor = append(going.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "q", UID: "v"})
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), going, allocated), "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
	told := allocated.DeepCopy()
	told.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "d.example.com", Pool: "n1/p", Device: "d0",
		NetworkData: &resourcev1.NetworkDeviceData{InterfaceName: "eth1", IPs: []string{"10.0.0.1/8"}}}}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), told, allocated))
	wrong := told.DeepCopy()
	wrong.Status.Devices = append(wrong.Status.Devices, wrong.Status.Devices[0], resourcev1.AllocatedDeviceStatus{Driver: "d.example.com", Pool: "n1/p", Device: "d1",
		Data: &runtime.RawExtension{Raw: []byte("1")}, NetworkData: &resourcev1.NetworkDeviceData{IPs: []string{"10.0.0.1"}}})
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), wrong, allocated),
		`status.devices[2]: Invalid value: {"Driver":"d.example.com","Pool":"n1/p","Device":"d1","ShareID":""}: must be an allocated device in the claim`,
		`status.devices[2].data: Invalid value: "<value omitted>": must be a valid JSON object`, "status.devices[2].networkData.ips[0]: Invalid value",
		`status.devices[1]: Duplicate value: {"driver":"d.example.com","pool":"n1/p","device":"d0"`)
	back := told.DeepCopy()
	back.Status.Allocation, back.Status.ReservedFor = nil, nil
	if k.PrepareStatusUpdate(t.Context(), back, told); back.Status.Devices != nil {
		t.Error("what was said of a device outlives its allocation")
	}
	waits := newClaim(t, nil)
	waits.Status.Allocation = allocated.Status.Allocation.DeepCopy()
	waits.Status.Allocation.Devices.Results[0].BindingConditions = []string{"ready"}
	waits.Status.Allocation.Devices.Results[0].ShareID = ptr.To(types.UID("x"))
	waits.Status.Allocation.Devices.Results[0].Pool = "a//b"
	waits.Status.Allocation.Devices.Results[0].Tolerations = []resourcev1.DeviceToleration{{Operator: "Exists", Value: "v"}, {Operator: "Near"}}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), waits, pending), `status.allocation.devices.results[0].pool: Invalid value: "a//b": segment 1: must not be empty`,
		"bindingFailureConditions are required to use bindingConditions",
		"status.allocation.devices.results[0].tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
		`status.allocation.devices.results[0].tolerations[1].operator: Unsupported value: "Near"`,
		`status.allocation.devices.results[0].shareID: Invalid value: "x": must be a lowercase UUID in 8-4-4-4-12 format`)
	told.Status.Allocation.Devices.Results[0].Tolerations = []resourcev1.DeviceToleration{{Key: "k"}}
	told.Status.Allocation.Devices.Results[0].SkipNodeOperations = []resourcev1.SkipNodeOperation{"*"}
	if k.Default(told); told.Status.Allocation.Devices.Results[0].Tolerations[0].Operator != "Equal" {
		t.Error("a toleration of what was allocated has no operator")
	}
	if k.PrepareStatusUpdate(t.Context(), told, told.DeepCopy()); told.Status.Allocation.Devices.Results[0].SkipNodeOperations == nil {
		t.Error("skipped operations that were there are dropped")
	}
	if k.PrepareStatusUpdate(t.Context(), told, pending); told.Status.Allocation.Devices.Results[0].SkipNodeOperations != nil {
		t.Error("skipped operations are kept")
	}
	if _, cells := resourcetest.Cells(k, allocated); cells[0] != "allocated,reserved" {
		t.Errorf("cells %v", cells)
	}
}

func TestValidateSlice(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ResourceSlice")
	slice := func(edit func(*resourcev1.ResourceSliceSpec)) *resourcev1.ResourceSlice {
		s := &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{
			Driver: "d.example.com", NodeName: ptr.To("n1"), Pool: resourcev1.ResourcePool{Name: "p", ResourceSliceCount: 1},
			Devices: []resourcev1.Device{{Name: "d0", Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: ptr.To("x")}}}},
		}}
		edit(&s.Spec)
		return s
	}
	for _, c := range []struct {
		edit func(*resourcev1.ResourceSliceSpec)
		want []string
	}{
		{func(*resourcev1.ResourceSliceSpec) {}, nil},
		{func(s *resourcev1.ResourceSliceSpec) { s.NodeName = nil }, []string{"spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"}},
		{func(s *resourcev1.ResourceSliceSpec) { s.AllNodes = ptr.To(true) }, []string{"but multiple fields are set"}},
		{func(s *resourcev1.ResourceSliceSpec) { s.NodeName, s.AllNodes = nil, ptr.To(false) }, []string{
			"spec.allNodes: Invalid value: false: must be either unset or set to true", "spec: Required value: exactly one of"}},
		{func(s *resourcev1.ResourceSliceSpec) { s.SharedCounters = []resourcev1.CounterSet{} }, []string{"only one of `sharedCounters` or `devices` is allowed"}},
		{func(s *resourcev1.ResourceSliceSpec) { s.Devices[0].AllNodes = ptr.To(true) }, []string{
			"spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if"}},
		{func(s *resourcev1.ResourceSliceSpec) { s.Pool.ResourceSliceCount = 0 }, []string{"spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"}},
		{func(s *resourcev1.ResourceSliceSpec) { s.Devices = append(s.Devices, s.Devices[0]) }, []string{`spec.devices[1]: Duplicate value: "d0"`}},
		{func(s *resourcev1.ResourceSliceSpec) {
			s.Devices[0].Attributes["v"] = resourcev1.DeviceAttribute{VersionValue: ptr.To("one")}
		}, []string{"must be a string compatible with semver.org spec 2.0.0"}},
		{func(s *resourcev1.ResourceSliceSpec) {
			s.Devices[0].Attributes["v"] = resourcev1.DeviceAttribute{VersionValue: ptr.To("1.2.3-a.01")}
		}, []string{"must be a string compatible with semver.org spec 2.0.0"}},
		{func(s *resourcev1.ResourceSliceSpec) {
			s.Devices[0].Attributes["v"] = resourcev1.DeviceAttribute{VersionValue: ptr.To("1.2.3-a.0.b-1+001.x")}
		}, nil},
		{func(s *resourcev1.ResourceSliceSpec) {
			uses := resourcev1.DeviceCounterConsumption{CounterSet: "c", Counters: map[string]resourcev1.Counter{"Bad Key!": {Value: resource.MustParse("1Gi")}}}
			s.Devices[0].ConsumesCounters = []resourcev1.DeviceCounterConsumption{uses, uses}
		}, []string{`spec.devices[0].consumesCounters[0].counters: Invalid value: "Bad Key!": a lowercase RFC 1123 label`,
			`spec.devices[0].consumesCounters[1].counters: Invalid value: "Bad Key!": a lowercase RFC 1123 label`,
			`spec.devices[0].consumesCounters[1]: Duplicate value: {"counterSet":"c","counters":{"Bad Key!":{"value":"1Gi"}}}`}},
		{func(s *resourcev1.ResourceSliceSpec) {
			s.Devices[0].ConsumesCounters = []resourcev1.DeviceCounterConsumption{{}}
		}, []string{
			"spec.devices[0].consumesCounters[0].counterSet: Required value", "spec.devices[0].consumesCounters[0].counters: Required value"}},
		{func(s *resourcev1.ResourceSliceSpec) { s.Devices[0].Attributes["v"] = resourcev1.DeviceAttribute{} }, []string{`spec.devices[0].attributes[v]: Invalid value: "": must specify one of: ` + "`int`"}},
		{func(s *resourcev1.ResourceSliceSpec) { s.Devices[0].NodeName = ptr.To("n") }, []string{"can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), slice(c.edit)), c.want...)
	}
	alone := slice(func(s *resourcev1.ResourceSliceSpec) {
		s.Devices[0].Capacity = map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"mem": {Value: resource.MustParse("1Gi"), RequestPolicy: &resourcev1.CapacityRequestPolicy{}}}
	})
	shared := alone.DeepCopy()
	shared.Spec.Devices[0].AllowMultipleAllocations = ptr.To(true)
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), alone, shared))
	shared.Spec.Devices[0].Capacity = nil
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), alone, shared), "spec.devices[0].capacity[mem].requestPolicy: Forbidden: allowMultipleAllocations must be true")
	if got := k.Fields(alone).String(); got != "spec.driver=d.example.com,spec.nodeName=n1,spec.pool.name=p" {
		t.Errorf("selectable by %s", got)
	}
	tainted := slice(func(s *resourcev1.ResourceSliceSpec) {
		s.Devices[0].Taints = []resourcev1.DeviceTaint{{Key: "k", Effect: "NoSchedule"}}
	})
	k.PrepareForCreate(t.Context(), tainted)
	if tainted.Spec.Devices[0].Taints[0].TimeAdded == nil {
		t.Error("a taint was not given its time")
	}
}

func TestValidateOthers(t *testing.T) {
	class := &resourcev1.DeviceClass{Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{{}}, ExtendedResourceName: ptr.To("cpu")}}
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "DeviceClass").Validate(t.Context(), class),
		"spec.selectors[0].cel: Required value", "spec.extendedResourceName: Invalid value")
	k := resourcetest.Kind(t, Group(), "DeviceClass")
	long := &resourcev1.DeviceClass{Spec: resourcev1.DeviceClassSpec{Config: []resourcev1.DeviceClassConfiguration{{DeviceConfiguration: resourcev1.DeviceConfiguration{
		Opaque: &resourcev1.OpaqueDeviceConfiguration{Driver: "d", Parameters: runtime.RawExtension{Raw: []byte(`{"a":"` + strings.Repeat("b", 10<<10) + `"}`)}}}}}}}
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), long, long))
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), long, class), "spec.config[0].opaque.parameters: Too long")
	rule := &resourcev1.DeviceTaintRule{Spec: resourcev1.DeviceTaintRuleSpec{Taint: resourcev1.DeviceTaint{Key: "a b", Effect: "Explode"}}}
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "DeviceTaintRule").Validate(t.Context(), rule),
		"spec.taint.key: Invalid value", `spec.taint.effect: Unsupported value: "Explode"`)
}

// A selector is compiled when it comes, and what it can cost at most is known (KEP-4381).
func TestValidateExpressions(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "DeviceClass")
	class := func(text string) *resourcev1.DeviceClass {
		return &resourcev1.DeviceClass{Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: text}}}}}
	}
	const path = "spec.selectors[0].cel.expression: "
	each := func(body string, deep int) string { // over all attributes of all domains, nested
		for range deep {
			body = `device.attributes.all(d, device.attributes[d].all(a, ` + body + `))`
		}
		return body
	}
	for text, want := range map[string][]string{
		`device.driver == "d.example.com"`: nil,
		`device.attributes["d.example.com"].model == "x" && device.capacity["d.example.com"].memory.compareTo(quantity("1Gi")) >= 0`: nil,
		`device.attributes["d.example.com"].version.isGreaterThan(semver("1.0.0"))`:                                                  nil,
		`cel.bind(dra, device.attributes["d.example.com"], dra.one && dra.other)`:                                                    nil,
		`device.allowMultipleAllocations`:            nil,
		`device.attributes["d.example.com"].healthy`: nil,
		each("true", 1): nil,
		each("true", 3): {path + "Forbidden: too complex, exceeds cost limit"},
		`device.attributes["d.example.com"].name.matches("` + strings.Repeat("(a*)*", 500) + `")`: nil,
		`device.driver`:           {path + `Invalid value: "device.driver": must evaluate to bool or the unknown type, not string`},
		`device.nothing == 1`:     {"compilation failed: ", "undefined field 'nothing'"},
		`device.driver ==`:        {"compilation failed: ", "Syntax error"},
		`object.metadata == null`: {"compilation failed: ", "undeclared reference to 'object'"},
	} {
		errs := k.Validate(t.Context(), class(text))
		if len(want) == 2 {
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), path) || !strings.Contains(errs[0].Error(), want[0]) || !strings.Contains(errs[0].Error(), want[1]) {
				t.Errorf("%s: %v; want %q", text, errs, want)
			}
			continue
		}
		resourcetest.CheckErrors(t, errs, want...)
		resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), class(text), class("true")), want...)
		resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), class(text), class(text))) // as it was accepted
	}
	claim := &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r",
		Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c", AllocationMode: resourcev1.DeviceAllocationModeAll, Selectors: class("1").Spec.Selectors}}}}}}
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "ResourceClaim").Validate(t.Context(), claim),
		"spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"1\": must evaluate to bool")
}

func TestWhatIsOffIsDropped(t *testing.T) {
	claims := resourcetest.Kind(t, Group(), "ResourceClaim")
	c := newClaim(t, func(d *resourcev1.DeviceClaim) {
		d.Requests[0].Exactly.DerivedAttributes = []resourcev1.DeviceDerivedAttribute{{}}
	})
	if claims.PrepareForCreate(t.Context(), c); c.Spec.Devices.Requests[0].Exactly.DerivedAttributes != nil {
		t.Error("derived attributes are kept")
	}
	c.Spec.Devices.Requests[0].Exactly.DerivedAttributes = []resourcev1.DeviceDerivedAttribute{{}}
	if claims.PrepareForUpdate(t.Context(), c, newClaim(t, nil)); c.Spec.Devices.Requests[0].Exactly.DerivedAttributes != nil {
		t.Error("an update brings derived attributes")
	}
	slices := resourcetest.Kind(t, Group(), "ResourceSlice")
	s := &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Driver: "D.example.com", SkipNodeOperations: []resourcev1.SkipNodeOperation{"*"}}}
	if slices.PrepareForUpdate(t.Context(), s, s.DeepCopy()); s.Spec.SkipNodeOperations == nil || s.Generation != 0 {
		t.Error("an update dropped what was there")
	}
	s.Spec.Devices = []resourcev1.Device{{Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"a": {IntValues: []int64{1}}},
		ConsumesCounters: []resourcev1.DeviceCounterConsumption{{CompatibilityGroups: []string{"g"}}}}}
	sent := s.DeepCopy()
	slices.PrepareForCreate(t.Context(), s)
	if d := s.Spec.Devices[0]; s.Spec.SkipNodeOperations != nil || d.Attributes["a"].IntValues != nil || d.ConsumesCounters[0].CompatibilityGroups != nil {
		t.Error("skipped operations, lists or groups are kept")
	}
	if slices.PrepareForUpdate(t.Context(), sent, s); sent.Generation != 2 || !check.Same(sent.Spec, s.Spec) {
		t.Errorf("what is dropped does not count as a change: generation %d, %+v", sent.Generation, sent.Spec)
	}
	if w := slices.Warnings(t.Context(), s, nil); len(w) != 1 {
		t.Errorf("of a driver in capitals: %q", w)
	}
}

func TestTemplateMetadata(t *testing.T) {
	tpl := &resourcev1.ResourceClaimTemplate{Spec: resourcev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Name: "x"}}}
	k := resourcetest.Kind(t, Group(), "ResourceClaimTemplate")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), tpl), "spec.metadata.name: Forbidden: cannot be set")
	old := tpl.DeepCopy()
	old.Spec.ObjectMeta = metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), tpl, old),
		"spec.metadata.name: Forbidden: cannot be set",
		`spec: Invalid value: {"name":"x","Spec":{"Devices":{"Requests":null,"Constraints":null,"Config":null}}}: field is immutable`)
}

func TestValidatePolicy(t *testing.T) {
	q := func(s string) *resource.Quantity { return ptr.To(resource.MustParse(s)) }
	for _, c := range []struct {
		policy resourcev1.CapacityRequestPolicy
		want   []string
	}{
		{resourcev1.CapacityRequestPolicy{}, nil},
		{resourcev1.CapacityRequestPolicy{ValidRange: &resourcev1.CapacityRequestPolicyRange{}}, []string{"p.default: Required value: required when validRange is defined"}},
		{resourcev1.CapacityRequestPolicy{Default: q("1"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("1"), Step: q("1")}}, nil},
		{resourcev1.CapacityRequestPolicy{Default: q("1"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("1"), Step: q("0")}}, []string{
			`p.validRange.step: Invalid value: "0": must be greater than zero`}},
		{resourcev1.CapacityRequestPolicy{Default: q("1500m"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("1"), Step: q("1")}}, nil},
		{resourcev1.CapacityRequestPolicy{Default: q("2500m"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("2"), Step: q("2")}}, []string{
			`p.validRange.step: Invalid value: "2500m": value is not a multiple of a given step (2) from (2)`}},
		{resourcev1.CapacityRequestPolicy{Default: q("1"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("1"), Step: q("18446744073709551616")}}, []string{
			`p.validRange.step: Invalid value: "18446744073709551616": one step`, "p.validRange.step: Invalid value: \"18446744073709551616\": must not be larger than"}},
		{resourcev1.CapacityRequestPolicy{Default: q("1"), ValidValues: []resource.Quantity{*q("500m"), *q("1")}}, []string{`p.validValues[1]: Duplicate value: "1"`}},
		{resourcev1.CapacityRequestPolicy{Default: q("1"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("2"), Max: q("20")}}, []string{
			`p.validRange.default: Invalid value: "1": default is less than min: 2`, `p.validRange.max: Invalid value: "20": max is larger than capacity value: 10`}},
		{resourcev1.CapacityRequestPolicy{Default: q("3"), ValidValues: []resource.Quantity{*q("2"), *q("1")}}, []string{
			`p.validValues[1]: Invalid value: "1": values must be sorted in ascending order`,
			`p.validValues: Invalid value: "3": default value is not valid according to the requestPolicy`}},
	} {
		resourcetest.CheckErrors(t, validatePolicy(*q("10"), &c.policy, field.NewPath("p")), c.want...)
	}
}
