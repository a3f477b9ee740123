package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/scheduling"
)

var priorityClasses = schema.GroupResource{Group: schedulingv1.GroupName, Resource: "priorityclasses"}

// newPriority writes the number that a pod's priority class stands for into the pod, and keeps the default class unique.
func newPriority(c *cluster) admission.Interface {
	return both{
		admitter: admitter{admission.NewHandler(admission.Create, admission.Update), c.admitPriority},
		validate: c.validatePriorityClass,
	}
}

func (c *cluster) admitPriority(ctx context.Context, a admission.Attributes) error {
	pod, ok := object[*corev1.Pod](a, pods)
	if !ok {
		return nil
	}
	if a.GetOperation() == admission.Update {
		// Clients that do not know the fields leave them out; they may not change.
		if old, ok := a.GetOldObject().(*corev1.Pod); ok {
			if pod.Spec.Priority == nil {
				pod.Spec.Priority = old.Spec.Priority
			}
			if pod.Spec.PreemptionPolicy == nil {
				pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
			}
		}
		return nil
	}
	class, err := c.priorityOf(ctx, pod)
	if notFound(err) {
		return admission.NewForbidden(a, fmt.Errorf("no PriorityClass with name %v was found", pod.Spec.PriorityClassName))
	}
	if err != nil {
		return fmt.Errorf("priority of pod: %w", err)
	}
	if p := pod.Spec.Priority; p != nil && *p != class.Value {
		return admission.NewForbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *p, class.Value))
	}
	if p := pod.Spec.PreemptionPolicy; p != nil && class.PreemptionPolicy != nil && *p != *class.PreemptionPolicy {
		return admission.NewForbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *p, *class.PreemptionPolicy))
	}
	pod.Spec.PriorityClassName = class.Name
	pod.Spec.Priority = ptr.To(class.Value)
	if class.PreemptionPolicy != nil {
		pod.Spec.PreemptionPolicy = class.PreemptionPolicy
	}
	return nil
}

// priorityOf returns the class of a pod, without a name if the pod names none and no class is the default.
func (c *cluster) priorityOf(ctx context.Context, pod *corev1.Pod) (*schedulingv1.PriorityClass, error) {
	name := pod.Spec.PriorityClassName
	// The system's own classes never change, and the first pods may come before they are stored.
	for _, s := range scheduling.System() {
		if s.Name == name {
			return s, nil
		}
	}
	if name != "" {
		if len(path.IsValidPathSegmentName(name)) > 0 { // no class has such a name, nor could one be asked for
			return nil, apierrors.NewNotFound(priorityClasses, name)
		}
		return c.priorities.Get(ctx, "", name)
	}
	class, err := c.defaultPriority(ctx)
	if err != nil || class != nil {
		return class, err
	}
	return &schedulingv1.PriorityClass{PreemptionPolicy: ptr.To(corev1.PreemptLowerPriority)}, nil
}

// defaultPriority returns the default class, the lowest if there are several, nil if there is none.
func (c *cluster) defaultPriority(ctx context.Context) (*schedulingv1.PriorityClass, error) {
	list, err := c.priorities.List(ctx, "")
	if err != nil {
		return nil, err
	}
	var lowest *schedulingv1.PriorityClass
	for _, p := range list {
		if p.GlobalDefault && (lowest == nil || p.Value < lowest.Value) {
			lowest = p
		}
	}
	return lowest, nil
}

func (c *cluster) validatePriorityClass(ctx context.Context, a admission.Attributes) error {
	class, ok := object[*schedulingv1.PriorityClass](a, priorityClasses)
	if !ok || !class.GlobalDefault {
		return nil
	}
	other, err := c.defaultPriority(ctx)
	if err != nil {
		return fmt.Errorf("default priority class: %w", err)
	}
	if other != nil && (a.GetOperation() == admission.Create || other.Name != class.Name) {
		return admission.NewForbidden(a, fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", other.Name))
	}
	return nil
}
