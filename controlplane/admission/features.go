package admission

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	ndf "k8s.io/component-helpers/nodedeclaredfeatures"
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
		features := ndf.DefaultFramework
		need, err := features.InferForPodUpdate(&ndf.PodInfo{Spec: &old.Spec}, &ndf.PodInfo{Spec: &pod.Spec}, version.MajorMinor(1, 37))
		if err != nil {
			return admission.NewForbidden(a, fmt.Errorf("failed to infer pod capability requirements: %w", err))
		}
		if need.IsEmpty() {
			return nil
		}
		node, err := c.node(ctx, a, pod.Spec.NodeName)
		if err != nil {
			return err
		}
		match, err := features.MatchNode(need, node)
		if err != nil {
			return admission.NewForbidden(a, fmt.Errorf("failed to match pod requirements against node %q: %w", node.Name, err))
		}
		if !match.IsMatch {
			return admission.NewForbidden(a, fmt.Errorf("pod update requires features %s which are not available on node %q",
				strings.Join(match.UnsatisfiedRequirements, ", "), node.Name))
		}
		return nil
	}}
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
