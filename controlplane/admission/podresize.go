package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Causes of a refusal, as upstream's PodResizeValidator names them: who resizes automatically tells by them that another try is in vain.
const (
	causeCapacity metav1.CauseType = "NodeCapacity"
	causePlatform metav1.CauseType = "UnsupportedPlatform"
)

// newPodResize refuses what a pod's node could not give it if it were the only one there (KEP-1287). What is not there now, the kubelet
// tells in the pod's conditions.
func newPodResize(c *cluster) admission.Interface {
	return validator{admission.NewHandler(admission.Update), func(ctx context.Context, a admission.Attributes) error {
		pod, ok := a.GetObject().(*corev1.Pod)
		if !ok || a.GetResource().GroupResource() != pods || a.GetSubresource() != "resize" || pod.Spec.NodeName == "" {
			return nil
		}
		if old, ok := a.GetOldObject().(*corev1.Pod); ok && old.Generation == pod.Generation {
			return nil
		}
		node, err := c.node(ctx, a, pod.Spec.NodeName)
		if err != nil {
			return err
		}
		if system, ok := node.Labels[corev1.LabelOSStable]; ok && system != "linux" {
			return because(a, causePlatform, fmt.Errorf("pod resize is only supported on linux nodes, node %q is %q", node.Name, system))
		}
		if short := shortage(pod, node.Status.Allocatable); short != "" {
			return because(a, causeCapacity, errors.New("node didn't have enough allocatable resources: "+short))
		}
		return nil
	}}
}

// shortage names what a pod asks for and no empty node of that size has, "" for nothing.
func shortage(pod *corev1.Pod, has corev1.ResourceList) string {
	asks := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	var short []string
	if asks.Cpu().Cmp(*has.Cpu()) > 0 {
		short = append(short, fmt.Sprintf("cpu, requested: %d, allocatable: %d", asks.Cpu().MilliValue(), has.Cpu().MilliValue()))
	}
	if asks.Memory().Cmp(*has.Memory()) > 0 {
		short = append(short, fmt.Sprintf("memory, requested: %d, allocatable: %d", asks.Memory().Value(), has.Memory().Value()))
	}
	return strings.Join(short, "; ")
}

// because is a refusal with its cause in the details.
func because(a admission.Attributes, cause metav1.CauseType, why error) error {
	err := admission.NewForbidden(a, why)
	var status *apierrors.StatusError
	if errors.As(err, &status) && status.ErrStatus.Details != nil {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	}
	return err
}
