package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

func TestDeclaredFeatures(t *testing.T) {
	amounts := corev1.ResourceList{"cpu": apiresource.MustParse("1"), "memory": apiresource.MustParse("1Gi")}
	node := func(name string, features ...string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Allocatable: amounts, DeclaredFeatures: features}}
	}
	c, _ := chain(t, nil, node("new", "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"), node("old"))
	whole := func(p *corev1.Pod) { p.Spec.Resources = &corev1.ResourceRequirements{Requests: amounts} }
	inits := func(p *corev1.Pod) { p.Spec.InitContainers[0].Resources.Requests = amounts }
	one := func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = amounts }
	for _, x := range []struct {
		node, sub  string
		generation int64
		change     func(*corev1.Pod)
		refused    string
	}{
		{"new", "resize", 2, whole, ""},
		{"new", "resize", 2, inits, ""},
		{"old", "resize", 2, one, ""},
		{"old", "resize", 1, whole, ""},
		{"old", "status", 2, whole, ""},
		{"", "resize", 2, whole, ""},
		{"old", "resize", 2, whole, `pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node "old"`},
		{"old", "", 2, inits, `pod update requires features InPlacePodVerticalScalingInitContainers which are not available on node "old"`},
		{"gone", "resize", 2, inits, `node "gone" not found`},
	} {
		old := newPod()
		old.Spec.InitContainers = []corev1.Container{{Name: "init"}}
		old.Spec.NodeName, old.Generation = x.node, 1
		now := old.DeepCopy()
		now.Generation = x.generation
		x.change(now)
		refused(t, admit(t, c, write{op: admission.Update, resource: "pods", sub: x.sub, obj: now, old: old}), x.refused)
	}
}
