package apps

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/claim"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

func statefulSet() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "StatefulSet", Plural: "statefulsets", ShortNames: []string{"sts"}, Categories: all, Namespaced: true,
		HasStatus: true, HasGeneration: true,
		ValidateName: apivalidation.NameIsDNSLabel,
		New:          func() runtime.Object { return &appsv1.StatefulSet{} },
		NewList:      func() runtime.Object { return &appsv1.StatefulSetList{} },
		Columns: append([]resource.Column{
			resource.Col("Ready", "string", "Number of the pod with ready state", 0, func(s *appsv1.StatefulSet) any {
				return readyOf(s.Status.ReadyReplicas, s.Spec.Replicas)
			}),
		}, cell.Template(func(s *appsv1.StatefulSet) *corev1.PodSpec { return &s.Spec.Template.Spec })...),
		Install: withScale("statefulsets",
			func(s *appsv1.StatefulSet) **int32 { return &s.Spec.Replicas },
			func(s *appsv1.StatefulSet) (int32, *metav1.LabelSelector) { return s.Status.Replicas, s.Spec.Selector }),
	}, resource.Rules[*appsv1.StatefulSet]{
		Default:          defaultStatefulSet,
		PrepareForCreate: func(_ context.Context, s *appsv1.StatefulSet) { podspec.DropDisabled(&s.Spec.Template.Spec) },
		PrepareForUpdate: func(_ context.Context, s, _ *appsv1.StatefulSet) { podspec.DropDisabled(&s.Spec.Template.Spec) },
		Validate: func(_ context.Context, s *appsv1.StatefulSet) field.ErrorList {
			path := field.NewPath("spec")
			errs := append(validateStatefulSet(&s.Spec, path), validateCreated(&s.Spec, path)...)
			return append(errs, validatePods(&s.Spec, path.Child("template"))...)
		},
		ValidateUpdate:       validateStatefulSetUpdate,
		ValidateStatusUpdate: validateStatefulSetStatus,
		Warnings:             statefulSetWarnings,
	})
}

func statefulSetWarnings(_ context.Context, s, old *appsv1.StatefulSet) []string {
	var warnings []string
	if old == nil {
		warnings = templateWarnings(&s.Spec.Template)
	} else {
		warnings = updateWarnings(s, old, &s.Spec.Template)
	}
	for i := range s.Spec.VolumeClaimTemplates {
		at := field.NewPath("spec", "volumeClaimTemplates").Index(i)
		if old != nil {
			at = at.Child("Spec") // upstream's two spellings of one place
		}
		warnings = append(warnings, claim.Warnings(&s.Spec.VolumeClaimTemplates[i].Spec, at)...)
	}
	if n := s.Spec.RevisionHistoryLimit; n != nil && *n < 0 {
		warnings = append(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return warnings
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	podspec.DefaultTemplate(&s.Spec.Template)
	for i := range s.Spec.VolumeClaimTemplates {
		c := &s.Spec.VolumeClaimTemplates[i]
		c.APIVersion, c.Kind = "v1", "PersistentVolumeClaim"
		claim.Default(c)
	}
	if s.Spec.PodManagementPolicy == "" {
		s.Spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	u := &s.Spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
		set(&u.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType && u.RollingUpdate != nil {
		set(&u.RollingUpdate.Partition, 0)
		set(&u.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	}
	set(&s.Spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	p := s.Spec.PersistentVolumeClaimRetentionPolicy
	if p.WhenDeleted == "" {
		p.WhenDeleted = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	if p.WhenScaled == "" {
		p.WhenScaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	set(&s.Spec.Replicas, 1)
	set(&s.Spec.RevisionHistoryLimit, 10)
}

// validateStatefulSet checks everything but what validateCreated and validatePods do.
func validateStatefulSet(s *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch s.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	case "":
		errs = append(errs, field.Required(path.Child("podManagementPolicy"), ""))
	default:
		errs = append(errs, field.Invalid(path.Child("podManagementPolicy"), s.PodManagementPolicy,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	errs = append(errs, validateStatefulSetStrategy(&s.UpdateStrategy, path.Child("updateStrategy"))...)
	if p := s.PersistentVolumeClaimRetentionPolicy; p != nil {
		at := path.Child("persistentVolumeClaimRetentionPolicy")
		retention := func(policy appsv1.PersistentVolumeClaimRetentionPolicyType, at *field.Path) {
			errs = append(errs, check.OneOf(policy, at,
				appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType)...)
		}
		retention(p.WhenDeleted, at.Child("whenDeleted"))
		retention(p.WhenScaled, at.Child("whenScaled"))
	}
	errs = append(errs, check.NonNegativePtr(s.Replicas, path.Child("replicas"))...)
	errs = append(errs, check.NonNegative(s.MinReadySeconds, path.Child("minReadySeconds"))...)
	if s.Ordinals != nil {
		errs = append(errs, check.NonNegative(s.Ordinals.Start, path.Child("ordinals.start"))...)
	}
	return append(errs, validateStatefulSetTemplate(s, path)...)
}

// validateCreated checks what cannot change later, so that what an older server has accepted is left alone.
func validateCreated(s *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.ServiceName != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(s.ServiceName), path.Child("serviceName"), s.ServiceName)...)
	}
	for i := range s.VolumeClaimTemplates {
		errs = append(errs, claim.ValidateSpec(&s.VolumeClaimTemplates[i].Spec, path.Child("volumeClaimTemplates").Index(i).Child("spec"))...)
	}
	return errs
}

func validateStatefulSetUpdate(_ context.Context, set, oldSet *appsv1.StatefulSet) field.ErrorList {
	s, old, path := &set.Spec, &oldSet.Spec, field.NewPath("spec")
	errs := validateStatefulSet(s, path)
	// One that would be refused today is not held to today's rules for pods.
	if len(validateStatefulSet(old, path)) == 0 && len(validatePods(old, path)) == 0 {
		errs = append(errs, validatePods(s, path.Child("template"))...)
	}
	errs = append(errs, check.Immutable(s.Selector, old.Selector, path.Child("selector"))...)
	errs = append(errs, check.Immutable(s.VolumeClaimTemplates, old.VolumeClaimTemplates, path.Child("volumeClaimTemplates"))...)
	errs = append(errs, check.Immutable(s.ServiceName, old.ServiceName, path.Child("serviceName"))...)
	return append(errs, check.Immutable(s.PodManagementPolicy, old.PodManagementPolicy, path.Child("podManagementPolicy"))...)
}

func validateStatefulSetTemplate(s *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	} else {
		errs = append(errs, check.Selector(s.Selector, path.Child("selector"))...)
		if check.EmptySelector(s.Selector) {
			errs = append(errs, field.Invalid(path.Child("selector"), s.Selector, "empty selector is invalid for statefulset"))
		}
	}
	template := path.Child("template")
	w := workload{kind: "StatefulSet", selector: s.Selector, template: &s.Template}
	selector, err := metav1.LabelSelectorAsSelector(s.Selector)
	if err != nil {
		errs = append(errs, field.Invalid(path.Child("selector"), s.Selector, ""))
	} else {
		errs = append(errs, w.matches(selector, template)...)
	}
	return append(errs, w.alwaysRestarts(template)...)
}

// validatePods checks the template as its pods will be.
func validatePods(s *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	if _, err := metav1.LabelSelectorAsSelector(s.Selector); err != nil {
		return nil
	}
	return podspec.ValidateTemplate(asPods(&s.Template, s.VolumeClaimTemplates), path)
}

// asPods is the template without the host name and subdomain, which its pods get from the set, and with the volumes
// that they will have from the claim templates, which take the place of volumes of the same name: mounts refer to them.
func asPods(t *corev1.PodTemplateSpec, claims []corev1.PersistentVolumeClaim) *corev1.PodTemplateSpec {
	out := *t
	out.Spec.Hostname, out.Spec.Subdomain = "", ""
	out.Spec.Volumes = nil
	named := map[string]bool{}
	for _, c := range claims {
		if named[c.Name] {
			continue
		}
		named[c.Name] = true
		out.Spec.Volumes = append(out.Spec.Volumes, corev1.Volume{Name: c.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name},
		}})
	}
	for _, v := range t.Spec.Volumes {
		if !named[v.Name] {
			out.Spec.Volumes = append(out.Spec.Volumes, v)
		}
	}
	return &out
}

// shownStrategy is a strategy as errors show it: upstream's own form of it has no partition that is absent.
func shownStrategy(u *appsv1.StatefulSetUpdateStrategy) *appsv1.StatefulSetUpdateStrategy {
	out := u.DeepCopy()
	if out.RollingUpdate != nil {
		set(&out.RollingUpdate.Partition, 0)
	}
	return out
}

func validateStatefulSetStrategy(u *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch u.Type {
	case "":
		return field.ErrorList{field.Required(path, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if u.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(path.Child("rollingUpdate"), shownStrategy(u).RollingUpdate,
				fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType))}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if u.RollingUpdate == nil {
			return nil
		}
	default:
		return field.ErrorList{field.Invalid(path, shownStrategy(u),
			fmt.Sprintf("must be '%s' or '%s'", appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType))}
	}
	path = path.Child("rollingUpdate")
	errs := check.NonNegativePtr(u.RollingUpdate.Partition, path.Child("partition"))
	if m := u.RollingUpdate.MaxUnavailable; m != nil {
		at := path.Child("maxUnavailable")
		errs = append(errs, check.IntOrPercent(*m, at)...)
		if check.Whole(m) == 0 {
			errs = append(errs, field.Invalid(at, *m, "cannot be 0"))
		}
		errs = append(errs, check.AtMostHundredPercent(*m, at)...)
	}
	return errs
}

func validateStatefulSetStatus(_ context.Context, s, old *appsv1.StatefulSet) field.ErrorList {
	path, st := field.NewPath("status"), &s.Status
	ready, current := count{"readyReplicas", int64(st.ReadyReplicas)}, count{"currentReplicas", int64(st.CurrentReplicas)}
	updated, available := count{"updatedReplicas", int64(st.UpdatedReplicas)}, count{"availableReplicas", int64(st.AvailableReplicas)}
	errs := counts(path, count{"replicas", int64(st.Replicas)}, ready, current, updated, available, count{"observedGeneration", st.ObservedGeneration})
	errs = append(errs, within(path, st.Replicas, beyondReplicas, ready, current, updated, available)...)
	errs = append(errs, within(path, st.ReadyReplicas, "cannot be greater than status.readyReplicas", available)...)
	return append(errs, collisions(st.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}
