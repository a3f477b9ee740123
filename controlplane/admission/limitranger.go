package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	resourcehelper "k8s.io/component-helpers/resource"
)

// limitsAnnotation tells what was filled in, for whoever wonders where a limit comes from.
const limitsAnnotation = "kubernetes.io/limit-ranger"

// newLimitRanger gives containers the default requests and limits of their namespace and holds pods and claims to its bounds.
func newLimitRanger(c *cluster) admission.Interface {
	return both{
		admitter: admitter{admission.NewHandler(admission.Create, admission.Update), func(ctx context.Context, a admission.Attributes) error {
			pod, ok := a.GetObject().(*corev1.Pod)
			if !ok || !limited(a) {
				return nil
			}
			return c.eachLimit(ctx, a, func(l *corev1.LimitRange) error {
				fillResources(pod, l)
				return nil
			})
		}},
		validate: func(ctx context.Context, a admission.Attributes) error {
			if !limited(a) {
				return nil
			}
			return c.eachLimit(ctx, a, func(l *corev1.LimitRange) error {
				switch o := a.GetObject().(type) {
				case *corev1.Pod:
					return podWithin(o, l)
				case *corev1.PersistentVolumeClaim:
					return claimWithin(o, l)
				}
				return nil
			})
		},
	}
}

// limited says whether the request sets resources. A pod's are fixed at its creation, but for resize.
func limited(a admission.Attributes) bool {
	switch a.GetResource().GroupResource() {
	case pods:
		if a.GetSubresource() == "resize" {
			return a.GetOperation() == admission.Update
		}
		return a.GetSubresource() == "" && a.GetOperation() == admission.Create
	case claims:
		return a.GetSubresource() == ""
	}
	return false
}

func (c *cluster) eachLimit(ctx context.Context, a admission.Attributes, do func(*corev1.LimitRange) error) error {
	if old := a.GetOldObject(); old != nil {
		if m, err := meta.Accessor(old); err == nil && m.GetDeletionTimestamp() != nil {
			return nil
		}
	}
	list, err := c.limits.List(ctx, a.GetNamespace())
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("unable to %s %v at this time because there was an error enforcing limit ranges", a.GetOperation(), a.GetResource()))
	}
	for _, l := range list {
		if err := do(l); err != nil {
			return admission.NewForbidden(a, err)
		}
	}
	return nil
}

func fillResources(pod *corev1.Pod, l *corev1.LimitRange) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for _, item := range l.Spec.Limits {
		if item.Type == corev1.LimitTypeContainer {
			maps.Copy(requests, item.DefaultRequest)
			maps.Copy(limits, item.Default)
		}
	}
	var notes []string
	fill := func(containers []corev1.Container, what string) {
		for i := range containers {
			ct := &containers[i]
			if set := fillList(&ct.Resources.Requests, requests); set != "" {
				notes = append(notes, set+" request for "+what+" "+ct.Name)
			}
			if set := fillList(&ct.Resources.Limits, limits); set != "" {
				notes = append(notes, set+" limit for "+what+" "+ct.Name)
			}
		}
	}
	fill(pod.Spec.Containers, "container")
	fill(pod.Spec.InitContainers, "init container")
	if len(notes) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[limitsAnnotation] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
}

// fillList adds what list lacks of defaults and returns the names that it added.
func fillList(list *corev1.ResourceList, defaults corev1.ResourceList) string {
	var set []string
	for name, q := range defaults {
		if _, ok := (*list)[name]; ok {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q.DeepCopy()
		set = append(set, string(name))
	}
	slices.Sort(set)
	return strings.Join(set, ", ")
}

func podWithin(pod *corev1.Pod, l *corev1.LimitRange) error {
	var errs []error
	for _, item := range l.Spec.Limits {
		switch item.Type {
		case corev1.LimitTypeContainer:
			for _, ct := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
				errs = append(errs, bounds(item, ct.Resources.Requests, ct.Resources.Limits)...)
			}
		case corev1.LimitTypePod:
			bare := resourcehelper.PodResourcesOptions{ExcludeOverhead: true} // what a sandbox takes is not the user's to bound
			errs = append(errs, bounds(item, resourcehelper.PodRequests(pod, bare), resourcehelper.PodLimits(pod, bare))...)
		}
	}
	return utilerrors.NewAggregate(errs)
}

func claimWithin(claim *corev1.PersistentVolumeClaim, l *corev1.LimitRange) error {
	var errs []error
	for _, item := range l.Spec.Limits {
		if item.Type != corev1.LimitTypePersistentVolumeClaim {
			continue
		}
		requests := claim.Spec.Resources.Requests
		for _, name := range sortedNames(item.Min) {
			errs = append(errs, atLeast(item.Type, name, item.Min[name], requests, nil))
		}
		for _, name := range sortedNames(item.Max) {
			// A claim has no limits that count: its request is what is bounded.
			most, usage := item.Max[name], fmt.Sprintf("maximum %s usage per %s is %s", name, item.Type, quantity(item.Max, name))
			if req, ok := requests[name]; !ok {
				errs = append(errs, fmt.Errorf("%s.  No request is specified", usage))
			} else if req.Cmp(most) > 0 {
				errs = append(errs, fmt.Errorf("%s, but request is %s", usage, req.String()))
			}
		}
	}
	return utilerrors.NewAggregate(errs)
}

func bounds(item corev1.LimitRangeItem, requests, limits corev1.ResourceList) []error {
	var errs []error
	for _, name := range sortedNames(item.Min) {
		errs = append(errs, atLeast(item.Type, name, item.Min[name], requests, limits))
	}
	for _, name := range sortedNames(item.Max) {
		errs = append(errs, atMost(item.Type, name, item.Max[name], requests, limits))
	}
	for _, name := range sortedNames(item.MaxLimitRequestRatio) {
		errs = append(errs, ratio(item.Type, name, item.MaxLimitRequestRatio[name], requests, limits))
	}
	return errs
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	return slices.Sorted(maps.Keys(list))
}

func quantity(list corev1.ResourceList, name corev1.ResourceName) string {
	q := list[name]
	return q.String()
}

func atLeast(of corev1.LimitType, name corev1.ResourceName, least apiresource.Quantity, requests, limits corev1.ResourceList) error {
	usage := fmt.Sprintf("minimum %s usage per %s is %s", name, of, least.String())
	req, ok := requests[name]
	if !ok {
		return fmt.Errorf("%s.  No request is specified", usage)
	}
	if req.Cmp(least) < 0 {
		return fmt.Errorf("%s, but request is %s", usage, req.String())
	}
	if lim, ok := limits[name]; ok && lim.Cmp(least) < 0 {
		return fmt.Errorf("%s, but limit is %s", usage, lim.String())
	}
	return nil
}

func atMost(of corev1.LimitType, name corev1.ResourceName, most apiresource.Quantity, requests, limits corev1.ResourceList) error {
	usage := fmt.Sprintf("maximum %s usage per %s is %s", name, of, most.String())
	lim, ok := limits[name]
	if !ok {
		return fmt.Errorf("%s.  No limit is specified", usage)
	}
	if lim.Cmp(most) > 0 {
		return fmt.Errorf("%s, but limit is %s", usage, lim.String())
	}
	if req, ok := requests[name]; ok && req.Cmp(most) > 0 {
		return fmt.Errorf("%s, but request is %s", usage, req.String())
	}
	return nil
}

func ratio(of corev1.LimitType, name corev1.ResourceName, most apiresource.Quantity, requests, limits corev1.ResourceList) error {
	usage := fmt.Sprintf("%s max limit to request ratio per %s is %s", name, of, most.String())
	req, lim := requests[name], limits[name]
	if req.IsZero() {
		return fmt.Errorf("%s, but no request is specified or request is 0", usage)
	}
	if lim.IsZero() {
		return fmt.Errorf("%s, but no limit is specified or limit is 0", usage)
	}
	if r := lim.AsApproximateFloat64() / req.AsApproximateFloat64(); r > most.AsApproximateFloat64() {
		return fmt.Errorf("%s, but provided ratio is %f", usage, r)
	}
	return nil
}
