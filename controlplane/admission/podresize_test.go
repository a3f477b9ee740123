package admission

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

func TestPodResize(t *testing.T) {
	q := apiresource.MustParse
	node := func(name, system string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: system}},
			Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{"cpu": q("2"), "memory": q("1Gi")}}}
	}
	c, _ := chain(t, nil, node("here", "linux"), node("there", "windows"))
	resize := func(on, cpu, memory, sub string) error {
		old := newPod()
		old.Spec.NodeName, old.Generation = on, 1
		now := old.DeepCopy()
		now.Spec.Containers[0].Resources.Requests, now.Generation = corev1.ResourceList{"cpu": q(cpu), "memory": q(memory)}, 2
		return admit(t, c, write{op: admission.Update, resource: "pods", sub: sub, obj: now, old: old})
	}
	refused(t, resize("here", "2", "1Gi", "resize"), "")
	refused(t, resize("", "3", "1Gi", "resize"), "")
	refused(t, resize("there", "1", "1Gi", "resize"), `pod resize is only supported on linux nodes, node "there" is "windows"`)
	refused(t, resize("gone", "1", "1Gi", "resize"), `node "gone" not found`)
	err := resize("here", "2500m", "2Gi", "resize")
	refused(t, err, "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824")
	var status *apierrors.StatusError
	if !errors.As(err, &status) || !apierrors.IsForbidden(err) || len(status.ErrStatus.Details.Causes) != 1 || status.ErrStatus.Details.Causes[0].Type != "NodeCapacity" {
		t.Errorf("the refusal names no cause: %#v", err)
	}
}
