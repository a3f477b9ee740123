package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// narrowNodes lets a gated pod's choice of nodes become narrower, and sets it back in spec to what old has, so that
// the caller's comparison does not see it.
func narrowNodes(spec, old *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(spec.NodeSelector, old.NodeSelector) {
		for key, was := range old.NodeSelector {
			if now, ok := spec.NodeSelector[key]; !ok || now != was {
				errs = append(errs, field.Invalid(specPath.Child("nodeSelector"), spec.NodeSelector,
					"only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
				break
			}
		}
		spec.NodeSelector = old.NodeSelector
	}
	now, was := nodeAffinity(spec), nodeAffinity(old)
	if equality.Semantic.DeepEqual(now, was) {
		return errs
	}
	errs = append(errs, narrowAffinity(now, was)...)
	switch a := spec.Affinity; {
	case a == nil:
		spec.Affinity = &corev1.Affinity{NodeAffinity: was}
	case old.Affinity == nil && a.PodAffinity == nil && a.PodAntiAffinity == nil:
		spec.Affinity = nil
	default:
		a.NodeAffinity = was
	}
	return errs
}

func nodeAffinity(spec *corev1.PodSpec) *corev1.NodeAffinity {
	if spec.Affinity == nil {
		return nil
	}
	return spec.Affinity.NodeAffinity
}

// narrowAffinity: terms are alternatives, so none may come or go; requirements within a term may be added at its end.
func narrowAffinity(now, was *corev1.NodeAffinity) field.ErrorList {
	path := specPath.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	terms := func(a *corev1.NodeAffinity) []corev1.NodeSelectorTerm {
		if a == nil || a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
			return nil
		}
		return a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	newTerms, oldTerms := terms(now), terms(was)
	if len(oldTerms) == 0 {
		return nil
	}
	if len(oldTerms) != len(newTerms) {
		return field.ErrorList{field.Invalid(path, newTerms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	for i := range oldTerms {
		if !isNarrower(newTerms[i], oldTerms[i]) {
			errs = append(errs, field.Invalid(path.Index(i), newTerms[i], "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

func isNarrower(now, was corev1.NodeSelectorTerm) bool {
	if len(was.MatchExpressions)+len(was.MatchFields) == 0 {
		// An empty term matches nothing; whatever is added would widen it.
		return len(now.MatchExpressions)+len(now.MatchFields) == 0
	}
	return beginsWith(now.MatchExpressions, was.MatchExpressions) && beginsWith(now.MatchFields, was.MatchFields)
}

func beginsWith(list, prefix []corev1.NodeSelectorRequirement) bool {
	return len(list) >= len(prefix) && equality.Semantic.DeepEqual(list[:len(prefix)], prefix)
}
