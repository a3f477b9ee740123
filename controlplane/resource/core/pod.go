package core

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubectl/pkg/util/qos"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

// podKind does not set HasStatus or HasGeneration: a status update may change labels and annotations, and pods count
// their generation in several subresources. installPod and the rules below do both.
func podKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Pod", Plural: "pods", ShortNames: []string{"po"}, Categories: []string{"all"}, Namespaced: true,
		New:          func() runtime.Object { return &corev1.Pod{} },
		NewList:      func() runtime.Object { return &corev1.PodList{} },
		Columns:      podColumns(),
		Ended:        podEnded,
		FieldAliases: map[string]string{"spec.host": "spec.nodeName"},
		Install:      installPod,
	}, resource.Rules[*corev1.Pod]{
		Default:             defaultPod,
		PrepareForCreate:    prepareNewPod,
		PrepareForUpdate:    preparePodUpdate,
		Validate:            func(_ context.Context, p *corev1.Pod) field.ErrorList { return validatePod(p) },
		ValidateUpdate:      func(_ context.Context, p, old *corev1.Pod) field.ErrorList { return validatePodUpdate(p, old) },
		Warnings:            podWarnings,
		CheckGracefulDelete: podGrace,
		Fields:              podFields,
	})
}

func installPod(d resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
	status := viewOf(store, viewRules[*corev1.Pod]{
		prepare:  preparePodStatus,
		validate: func(_ context.Context, p, old *corev1.Pod) field.ErrorList { return validatePodStatusUpdate(p, old) },
		warnings: func(_ context.Context, p, _ *corev1.Pod) []string { return podStatusWarnings(p) },
		reset:    []string{"spec"},
	})
	status.addReset("metadata", "deletionTimestamp")
	status.addReset("metadata", "ownerReferences")
	ephemeral := viewOf(store, viewRules[*corev1.Pod]{
		prepare:  prepareEphemeral,
		validate: func(_ context.Context, p, old *corev1.Pod) field.ErrorList { return validateEphemeralUpdate(p, old) },
	})
	resize := viewOf(store, viewRules[*corev1.Pod]{
		prepare:  prepareResize,
		validate: func(_ context.Context, p, old *corev1.Pod) field.ErrorList { return validateResize(p, old) },
	})
	store.ResetFieldsStrategy = view{reset: resetFields("status")}
	return map[string]rest.Storage{
		"status":              status,
		"ephemeralcontainers": podPart{ephemeral, []string{"ephemeralContainers"}, nil},
		"resize":              podPart{resize, []string{"containers", "initContainers"}, []string{"resources", "resizePolicy"}},
		"binding":             podBinding{store},
		"eviction":            podEviction{pods: status.store, budgets: d.Store},
	}, nil
}

func podFields(p *corev1.Pod) fields.Set {
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

func prepareNewPod(ctx context.Context, p *corev1.Pod) {
	p.Generation = 1
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	dropDisabled(p)
	if len(p.Spec.SchedulingGates) > 0 {
		setCondition(&p.Status, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		})
	}
	mergeLabelKeys(p)
	for _, text := range podspec.MoveAppArmor(&p.Spec, p.Annotations) {
		warning.AddWarning(ctx, "", text)
	}
	defaultPodResources(p)
	p.Status.QOSClass = qos.GetPodQOS(p)
}

func preparePodUpdate(_ context.Context, p, old *corev1.Pod) {
	p.Status = old.Status
	if p.Spec.Resources == nil && old.Spec.Resources != nil {
		// A client older than pod-level resources sends the pod back without them.
		p.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
	dropDisabled(p)
	countGeneration(p, old)
}

// countGeneration sets the generation from what is stored: clients cannot choose it.
func countGeneration(p, old *corev1.Pod) {
	p.Generation = old.Generation
	if !equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		p.Generation++
	}
}

func preparePodStatus(_ context.Context, p, old *corev1.Pod) {
	p.Spec = old.Spec
	p.Generation = old.Generation
	p.DeletionTimestamp = nil
	p.OwnerReferences = old.OwnerReferences
	s, was := &p.Status, &old.Status
	if s.QOSClass == "" {
		s.QOSClass = was.QOSClass
	}
	// A client that does not know these fields sends nil; an empty list clears them.
	if s.ResourceClaimStatuses == nil {
		s.ResourceClaimStatuses = was.ResourceClaimStatuses
	}
	if s.ExtendedResourceClaimStatus == nil {
		s.ExtendedResourceClaimStatus = was.ExtendedResourceClaimStatus
	}
	keepObservedGeneration(s, was)
	dropDisabled(p)
}

// keepObservedGeneration restores what an older client dropped. Conditions are matched by type, in order.
func keepObservedGeneration(s, was *corev1.PodStatus) {
	if s.ObservedGeneration == 0 {
		s.ObservedGeneration = was.ObservedGeneration
	}
	known := map[corev1.PodConditionType][]int64{}
	for _, c := range was.Conditions {
		known[c.Type] = append(known[c.Type], c.ObservedGeneration)
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		var before int64
		if list := known[c.Type]; len(list) > 0 {
			before, known[c.Type] = list[0], list[1:]
		}
		if c.ObservedGeneration == 0 {
			c.ObservedGeneration = before
		}
	}
}

// podGrace decides how long a pod may take to stop: as asked, else as its spec says, but no time at all for a pod
// that is on no node or has ended. A client's negative value means as short as possible.
func podGrace(_ context.Context, p *corev1.Pod, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	var period int64
	if options.GracePeriodSeconds != nil {
		period = *options.GracePeriodSeconds
	} else if p.Spec.TerminationGracePeriodSeconds != nil {
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		period = 0
	}
	if period < 0 {
		period = 1
	}
	options.GracePeriodSeconds = &period
	return true
}

// podWarnings are given on create only: updates come from programs, which read no warnings.
func podWarnings(_ context.Context, p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	var warnings []string
	if msgs := validation.IsDNS1123Label(p.Name); len(msgs) > 0 {
		warnings = append(warnings, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in "+
			"surprising behavior; a DNS label is recommended: %v", msgs))
	}
	return append(warnings, podspec.Warnings(&p.Spec, p.Annotations)...)
}

func podStatusWarnings(p *corev1.Pod) []string {
	var warnings []string
	for i, ip := range p.Status.PodIPs {
		warnings = append(warnings, validation.GetWarningsForIP(field.NewPath("status", "podIPs").Index(i).Child("ip"), ip.IP)...)
	}
	for i, ip := range p.Status.HostIPs {
		warnings = append(warnings, validation.GetWarningsForIP(field.NewPath("status", "hostIPs").Index(i).Child("ip"), ip.IP)...)
	}
	return warnings
}

// setCondition adds the condition or replaces the one of its type, stamping the transition if the status changed.
func setCondition(s *corev1.PodStatus, c corev1.PodCondition) {
	c.LastTransitionTime = metav1.Now()
	for i, have := range s.Conditions {
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		s.Conditions[i] = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}
