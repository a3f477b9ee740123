package node

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "runtimeclasses", Kind: "RuntimeClass"})
}

func TestValidate(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "RuntimeClass")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), &nodev1.RuntimeClass{Handler: "runsc"}))
	bad := &nodev1.RuntimeClass{
		Handler: "Not_A_Label",
		Overhead: &nodev1.Overhead{PodFixed: corev1.ResourceList{
			"bananas":          apiresource.MustParse("1"),
			corev1.ResourceCPU: apiresource.MustParse("-1"),
		}},
		Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"a b": "c"},
			Tolerations:  []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}, {Key: "k", Operator: corev1.TolerationOpExists}},
		},
	}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), bad),
		`handler: Invalid value: "Not_A_Label": a lowercase RFC 1123 label`,
		`overhead.limits[bananas]: Invalid value: "bananas": must be a standard resource type or fully qualified`,
		`overhead.limits[bananas]: Invalid value: "bananas": must be a standard resource for containers`,
		`overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0`,
		`scheduling.nodeSelector: Invalid value: "a b"`,
		`scheduling.tolerations[1]: Duplicate value: {"Key":"k","Operator":"Exists","Value":"","Effect":"","TolerationSeconds":null}`)
	resourcetest.CheckErrors(t, k.Validate(t.Context(), &nodev1.RuntimeClass{}), "handler: Required value")
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), &nodev1.RuntimeClass{Handler: "a"}, &nodev1.RuntimeClass{Handler: "b"}),
		"handler: Invalid value: null: field is immutable")
	old := &nodev1.RuntimeClass{Handler: "a", Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"beta.kubernetes.io/arch": "x"}}}
	if w := k.Warnings(t.Context(), old, nil); len(w) != 1 || w[0] != `scheduling.nodeSelector: deprecated since v1.14; use "kubernetes.io/arch" instead` {
		t.Errorf("warnings %q", w)
	}
}
