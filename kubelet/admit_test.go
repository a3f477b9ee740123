package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// A pod that needs what the kubelet does not declare is refused, however it came here.
func TestLacks(t *testing.T) {
	all := corev1.Container{RestartPolicyRules: []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers}}}
	for _, c := range []struct {
		spec corev1.PodSpec
		want string
	}{
		{corev1.PodSpec{}, ""},
		{corev1.PodSpec{Containers: []corev1.Container{all}}, ""},
		{corev1.PodSpec{HostNetwork: true, HostUsers: ptr.To(false)}, "Pod requires node features that are not available: UserNamespacesHostNetworkSupport"},
	} {
		if got := Lacks(&corev1.Pod{Spec: c.spec}); got != c.want {
			t.Errorf("%+v: %q, want %q", c.spec, got, c.want)
		}
	}
}
