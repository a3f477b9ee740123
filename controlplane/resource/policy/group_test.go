package policy

import (
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "poddisruptionbudgets", Short: "pdb", Kind: "PodDisruptionBudget", Namespaced: true})
}

func TestValidate(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "PodDisruptionBudget")
	bad := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable:               ptr.To(intstr.FromString("101%")),
		MaxUnavailable:             ptr.To(intstr.FromString("half")),
		UnhealthyPodEvictionPolicy: ptr.To(policyv1.UnhealthyPodEvictionPolicyType("Never")),
	}}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), bad),
		`spec: Invalid value: {"MinAvailable":"101%","Selector":null,"MaxUnavailable":"half","UnhealthyPodEvictionPolicy":"Never"}: minAvailable and maxUnavailable cannot be both set`,
		`spec.minAvailable: Invalid value: "101%": must not be greater than 100%`,
		`spec.maxUnavailable: Invalid value: "half": a valid percent string must be a numeric string followed by an ending '%'`,
		`spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget"`)
	bad.Status.ExpectedPods = -1
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), bad, bad), "status.expectedPods: Invalid value: -1: must be greater than or equal to 0")
}

func TestReservedLabel(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "PodDisruptionBudget")
	reserved := metav1.LabelSelectorRequirement{Key: reservedLabel, Operator: metav1.LabelSelectorOpExists}
	for _, c := range []struct {
		labels map[string]string
		want   int
	}{{nil, 1}, {map[string]string{"a": "b"}, 0}} {
		b := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{
			MatchLabels: c.labels, MatchExpressions: []metav1.LabelSelectorRequirement{reserved}}}}
		k.PrepareForCreate(t.Context(), b)
		if n := len(b.Spec.Selector.MatchExpressions); n != c.want {
			t.Errorf("beside %v: %d expressions left, want %d", c.labels, n, c.want)
		}
	}
}

func TestColumns(t *testing.T) {
	b := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(2))}}
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "PodDisruptionBudget"), b)
	if names != "Min Available|Max Unavailable|Allowed Disruptions|Age" || cells[0] != "2" || cells[1] != "N/A" || cells[2] != int64(0) {
		t.Errorf("columns %s, cells %v", names, cells)
	}
}
