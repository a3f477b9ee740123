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
			return validateStatefulSet(&s.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, s, old *appsv1.StatefulSet) field.ErrorList {
			return append(validateStatefulSet(&s.Spec, &old.Spec, field.NewPath("spec")), onlyMutable(&s.Spec, &old.Spec)...)
		},
		ValidateStatusUpdate: validateStatefulSetStatus,
		Warnings: func(_ context.Context, s, old *appsv1.StatefulSet) []string {
			if old == nil {
				return templateWarnings(&s.Spec.Template, nil)
			}
			return templateWarnings(&s.Spec.Template, &old.Spec.Template)
		},
	})
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

func validateStatefulSet(s, old *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
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
	if s.RevisionHistoryLimit != nil && (old == nil || !check.Same(s.RevisionHistoryLimit, old.RevisionHistoryLimit)) {
		errs = append(errs, check.NonNegativePtr(s.RevisionHistoryLimit, path.Child("revisionHistoryLimit"))...)
	}
	errs = append(errs, validateServiceName(s, old, path.Child("serviceName"))...)
	errs = append(errs, validateClaims(s, old, path.Child("volumeClaimTemplates"))...)
	return append(errs, validateStatefulSetTemplate(s, old, path)...)
}

// validateServiceName leaves alone what an older server accepted.
func validateServiceName(s, old *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	if s.ServiceName == "" || old != nil && old.ServiceName == s.ServiceName {
		return nil
	}
	return check.Strings(validation.IsDNS1123Label(s.ServiceName), path, s.ServiceName)
}

// validateClaims checks the claim templates, which a pod's creation would fail on later. They do not change, so those
// that an older server accepted are left alone.
func validateClaims(s, old *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	if old != nil {
		return nil
	}
	var errs field.ErrorList
	for i := range s.VolumeClaimTemplates {
		errs = append(errs, claim.ValidateSpec(&s.VolumeClaimTemplates[i].Spec, path.Index(i).Child("spec"))...)
	}
	return errs
}

func validateStatefulSetTemplate(s, old *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
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
		full := withClaims(&s.Template, s.VolumeClaimTemplates)
		var was *corev1.PodTemplateSpec
		if old != nil {
			was = withClaims(&old.Template, old.VolumeClaimTemplates)
		}
		errs = append(errs, podspec.ValidateTemplateUpdate(full, was, template)...)
	}
	return append(errs, w.alwaysRestarts(template)...)
}

// withClaims is the template with the volumes that its pods will have from the claim templates,
// which take the place of volumes of the same name: mounts refer to them.
func withClaims(t *corev1.PodTemplateSpec, claims []corev1.PersistentVolumeClaim) *corev1.PodTemplateSpec {
	out := *t
	out.Spec.Volumes = nil
	named := map[string]bool{}
	for _, c := range claims {
		named[c.Name] = true
	}
	for _, v := range t.Spec.Volumes {
		if !named[v.Name] {
			out.Spec.Volumes = append(out.Spec.Volumes, v)
		}
	}
	for _, c := range claims {
		if named[c.Name] {
			named[c.Name] = false
			out.Spec.Volumes = append(out.Spec.Volumes, corev1.Volume{Name: c.Name, VolumeSource: corev1.VolumeSource{
				// The claim's own name ends in the pod's, which is not known here: any valid name serves.
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"},
			}})
		}
	}
	return &out
}

func validateStatefulSetStrategy(u *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch u.Type {
	case "":
		return field.ErrorList{field.Required(path, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if u.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(path.Child("rollingUpdate"), u.RollingUpdate,
				fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType))}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if u.RollingUpdate == nil {
			return nil
		}
	default:
		return field.ErrorList{field.Invalid(path, u,
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

// onlyMutable refuses changes of what a StatefulSet's pods and claims are built on.
func onlyMutable(s, old *appsv1.StatefulSetSpec) field.ErrorList {
	c := *s
	c.Replicas, c.Ordinals, c.Template, c.UpdateStrategy = old.Replicas, old.Ordinals, old.Template, old.UpdateStrategy
	c.RevisionHistoryLimit, c.MinReadySeconds = old.RevisionHistoryLimit, old.MinReadySeconds
	c.PersistentVolumeClaimRetentionPolicy = old.PersistentVolumeClaimRetentionPolicy
	if check.Same(&c, old) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")}
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
