package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"
)

// newDeclaredFeatures refuses an update of a pod that its node's kubelet cannot follow: one from before the feature would leave
// it undone and tell nobody (KEP-5328).
func newDeclaredFeatures(c *cluster) admission.Interface {
	return validator{admission.NewHandler(admission.Update), func(ctx context.Context, a admission.Attributes) error {
		sub := a.GetSubresource()
		if a.GetResource().GroupResource() != pods || sub != "" && sub != "resize" {
			return nil
		}
		pod, ok := a.GetObject().(*corev1.Pod)
		old, has := a.GetOldObject().(*corev1.Pod)
		if !ok || !has || pod.Spec.NodeName == "" || old.Generation == pod.Generation {
			return nil
		}
		need := updateNeeds(&pod.Spec, &old.Spec)
		if len(need) == 0 {
			return nil
		}
		node, err := c.node(ctx, a, pod.Spec.NodeName)
		if err != nil {
			return err
		}
		lacks := slices.DeleteFunc(need, func(feature string) bool { return slices.Contains(node.Status.DeclaredFeatures, feature) })
		if len(lacks) > 0 {
			return admission.NewForbidden(a, fmt.Errorf("pod update requires features %s which are not available on node %q",
				strings.Join(lacks, ", "), node.Name))
		}
		return nil
	}}
}

// updateNeeds are the features that a kubelet needs to follow a change of a running pod, sorted.
func updateNeeds(spec, old *corev1.PodSpec) []string {
	var out []string
	if !equality.Semantic.DeepEqual(spec.Resources, old.Resources) {
		out = append(out, "InPlacePodLevelResourcesVerticalScaling")
	}
	for i := range old.InitContainers {
		sidecar := ptr.Deref(old.InitContainers[i].RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
		if !sidecar && i < len(spec.InitContainers) && !equality.Semantic.DeepEqual(old.InitContainers[i].Resources, spec.InitContainers[i].Resources) {
			return append(out, "InPlacePodVerticalScalingInitContainers")
		}
	}
	return out
}

// node reads a pod's node for who judges by it.
func (c *cluster) node(ctx context.Context, a admission.Attributes, name string) (*corev1.Node, error) {
	node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		return nil, admission.NewForbidden(a, fmt.Errorf("node %q not found", name))
	} else if err != nil {
		return nil, admission.NewForbidden(a, fmt.Errorf("failed to get node %q: %w", name, err))
	}
	return node, nil
}
