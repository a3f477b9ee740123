package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

// used prints what an object uses of what a quota names, or of all if it names nothing.
func used(t *testing.T, obj runtime.Object, names ...corev1.ResourceName) string {
	t.Helper()
	classes := []*resourcev1.DeviceClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: ptr.To("example.com/gpu")}},
		{ObjectMeta: metav1.ObjectMeta{Name: "nic"}},
	}
	for _, e := range New(nil, func() []*resourcev1.DeviceClass { return classes }, time.Now).Evaluators() {
		list, err := e.Usage(obj)
		if err != nil || len(list) == 0 || !strings.Contains(fmt.Sprintf("%T", obj), map[string]string{
			"pods": "Pod", "persistentvolumeclaims": "PersistentVolumeClaim", "resourceclaims": "ResourceClaim"}[e.GroupResource().Resource]) {
			continue
		}
		if len(names) == 0 {
			names = slices.Collect(maps.Keys(list))
		}
		var out []string
		for _, name := range e.MatchingResources(names) {
			q := list[name]
			out = append(out, string(name)+"="+q.String())
		}
		slices.Sort(out)
		return strings.Join(slices.Compact(out), " ")
	}
	t.Fatalf("nobody measures a %T", obj)
	return ""
}

func TestUsage(t *testing.T) {
	list := func(name corev1.ResourceName, q string) corev1.ResourceList {
		return corev1.ResourceList{name: apiresource.MustParse(q)}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": apiresource.MustParse("1"), "deviceclass.resource.kubernetes.io/nic": apiresource.MustParse("2")}}}}}}
	claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "1500m")}}}
	exactly := func(class string, mode resourcev1.DeviceAllocationMode, n int64) resourcev1.DeviceRequest {
		return resourcev1.DeviceRequest{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: mode, Count: n}}
	}
	device := &resourcev1.ResourceClaim{}
	device.Spec.Devices.Requests = []resourcev1.DeviceRequest{
		exactly("gpu", resourcev1.DeviceAllocationModeExactCount, 2), exactly("nic", resourcev1.DeviceAllocationModeAll, 0),
		{FirstAvailable: []resourcev1.DeviceSubRequest{
			{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1},
			{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 4}}},
	}
	for _, x := range []struct {
		obj  runtime.Object
		of   []corev1.ResourceName
		want string
	}{
		{pod, nil, "count/pods=1 cpu=1 pods=1 requests.cpu=1 requests.deviceclass.resource.kubernetes.io/nic=2"},
		{claim, []corev1.ResourceName{"requests.storage", "pods"}, "requests.storage=2"},
		{device, nil, "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=6 nic.deviceclass.resource.k8s.io/devices=32" +
			" requests.deviceclass.resource.kubernetes.io/gpu=6 requests.deviceclass.resource.kubernetes.io/nic=32 requests.example.com/gpu=6"},
		{device, []corev1.ResourceName{"requests.cpu", "requests.example.com/other", "requests.deviceclass.resource.kubernetes.io/none"}, ""},
	} {
		if got := used(t, x.obj, x.of...); got != x.want {
			t.Errorf("%T uses of %v:\n%s, want\n%s", x.obj, x.of, got, x.want)
		}
	}
}

func TestScopes(t *testing.T) {
	in := func(classes ...string) corev1.ScopedResourceSelectorRequirement {
		return corev1.ScopedResourceSelectorRequirement{ScopeName: corev1.ResourceQuotaScopeVolumeAttributesClass, Operator: corev1.ScopeSelectorOpIn, Values: classes}
	}
	none := corev1.ScopedResourceSelectorRequirement{ScopeName: corev1.ResourceQuotaScopeVolumeAttributesClass, Operator: corev1.ScopeSelectorOpDoesNotExist}
	moving := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: ptr.To("new")},
		Status: corev1.PersistentVolumeClaimStatus{CurrentVolumeAttributesClassName: ptr.To("old"), ModifyVolumeStatus: &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: "next"}}}
	e := claims(nil)
	for _, x := range []struct {
		claim *corev1.PersistentVolumeClaim
		scope corev1.ScopedResourceSelectorRequirement
		want  bool
	}{
		{moving, in("new"), true}, {moving, in("old"), true}, {moving, in("next"), true}, {moving, in("other"), false}, {moving, none, false},
		{&corev1.PersistentVolumeClaim{}, none, true}, {&corev1.PersistentVolumeClaim{}, in("new"), false},
	} {
		got, err := e.MatchingScopes(x.claim, []corev1.ScopedResourceSelectorRequirement{x.scope})
		if err != nil || (len(got) == 1) != x.want {
			t.Errorf("%+v in scope %+v: %v, %v", x.claim.Status, x.scope, got, err)
		}
	}
	whole := &corev1.Pod{Spec: corev1.PodSpec{Resources: &corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": apiresource.MustParse("1")}}, Containers: []corev1.Container{{}}}}
	if bestEffort(whole) || !bestEffort(&corev1.Pod{}) || !bestEffort(&corev1.Pod{Spec: whole.Spec, Status: corev1.PodStatus{QOSClass: corev1.PodQOSBestEffort}}) {
		t.Error("best effort is what the pod's class says, or else its resources")
	}
}
