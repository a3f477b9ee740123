package downward

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func TestResource(t *testing.T) {
	limits := func(l corev1.ResourceList) corev1.ResourceRequirements { return corev1.ResourceRequirements{Limits: l} }
	pod := func(podLimits corev1.ResourceList) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{
			InitContainers:      []corev1.Container{{Name: "init", Resources: limits(list("cpu", "100m"))}},
			Containers:          []corev1.Container{{Name: "bound", Resources: limits(list("cpu", "1500m", "memory", "64Mi", "hugepages-2Mi", "4Mi"))}, {Name: "free"}, {Name: "zero", Resources: limits(list("cpu", "0"))}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}},
		}}
		if podLimits != nil {
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: podLimits}
		}
		return p
	}
	node := list("cpu", "4", "memory", "1Gi", "ephemeral-storage", "10Gi", "hugepages-2Mi", "8Mi")
	for _, c := range []struct {
		name, container, resource, divisor string
		pod                                corev1.ResourceList
		want                               string
	}{
		{"its own limit, rounded up", "bound", "limits.cpu", "", nil, "2"},
		{"in parts", "bound", "limits.cpu", "1m", nil, "1500"},
		{"memory", "bound", "limits.memory", "1Mi", nil, "64"},
		{"huge pages", "bound", "limits.hugepages-2Mi", "1Mi", nil, "4"},
		{"of an init container", "init", "limits.cpu", "1m", nil, "100"},
		{"no limit: the node's processors", "free", "limits.cpu", "", nil, "4"},
		{"no limit: the node's memory", "free", "limits.memory", "1Mi", nil, "1024"},
		{"no limit: the node's storage", "free", "limits.ephemeral-storage", "1Gi", nil, "10"},
		{"no limit of an ephemeral container", "debug", "limits.cpu", "", nil, "4"},
		{"a limit of nothing is none", "zero", "limits.cpu", "", nil, "4"},
		{"no limit: the pod's", "free", "limits.cpu", "", list("cpu", "3"), "3"},
		{"no limit, and the pod has one of something else", "free", "limits.memory", "1Mi", list("cpu", "3"), "1024"},
		{"its own limit in a pod with one", "bound", "limits.cpu", "1m", list("cpu", "3"), "1500"},
		{"no huge pages", "free", "limits.hugepages-2Mi", "", nil, "0"},
		{"no request", "free", "requests.cpu", "", nil, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ref := &corev1.ResourceFieldSelector{Resource: c.resource}
			if c.divisor != "" {
				ref.Divisor = resource.MustParse(c.divisor)
			}
			got, err := Resource(pod(c.pod), c.container, ref, func() (corev1.ResourceList, error) { return node, nil })
			if err != nil || got != c.want {
				t.Errorf("%s of %s is %q, want %q (%v)", c.resource, c.container, got, c.want, err)
			}
		})
	}
	unknown := errors.New("no such node yet")
	ask := func() (corev1.ResourceList, error) { return nil, unknown }
	if got, err := Resource(pod(nil), "free", &corev1.ResourceFieldSelector{Resource: "limits.cpu"}, ask); !errors.Is(err, unknown) {
		t.Errorf("a limit of a node that is not known is %q, %v", got, err)
	}
	if got, err := Resource(pod(nil), "bound", &corev1.ResourceFieldSelector{Resource: "limits.cpu"}, ask); got != "2" || err != nil {
		t.Errorf("a limit that is set, on a node that is not known, is %q, %v", got, err)
	}
	if got, err := Resource(pod(nil), "none", &corev1.ResourceFieldSelector{Resource: "limits.cpu"}, ask); err == nil {
		t.Errorf("a limit of a container that is not there is %q", got)
	}
}
