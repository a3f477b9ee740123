package scheduling

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "priorityclasses", Short: "pc", Kind: "PriorityClass"})
}

func TestSystemClassesAreAcceptedAndComplete(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "PriorityClass")
	for _, p := range System() {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), p))
		resourcetest.CheckDefaults(t, k, p.DeepCopy(), p)
	}
}

func TestValidate(t *testing.T) {
	class := func(name string, value int32) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}
	}
	never := class("a", 5)
	never.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	odd := class("a", 5)
	odd.PreemptionPolicy = ptr.To(corev1.PreemptionPolicy("Sometimes"))
	k := resourcetest.Kind(t, Group(), "PriorityClass")
	for _, c := range []struct {
		class *schedulingv1.PriorityClass
		want  []string
	}{
		{class("high", HighestUser), nil},
		{never, nil},
		{class("higher", HighestUser+1), []string{"value: Forbidden: maximum allowed value of a user defined priority is 1000000000"}},
		{class("system-mine", 1), []string{"metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"}},
		{class(NodeCritical, 1), []string{"value of system-node-critical PriorityClass must be 2000001000"}},
		{odd, []string{`preemptionPolicy: Unsupported value: "Sometimes": supported values: "PreemptLowerPriority", "Never"`}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), c.class), c.want...)
	}
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), class("a", 2), class("a", 1)), "value: Forbidden: may not be changed in an update.")
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), never, class("a", 5)), "preemptionPolicy: Invalid value: \"Never\": field is immutable")
}

func TestColumns(t *testing.T) {
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "PriorityClass"), System()[0])
	if names != "Name|Value|Global-Default|Age|PreemptionPolicy" || cells[1] != int64(2000001000) || cells[4] != "PreemptLowerPriority" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
}
