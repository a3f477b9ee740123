package core

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubectl/pkg/util/qos"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// podPart is a view through which a client comes to own nothing but some fields of the specification, or some of the
// items of its lists.
type podPart struct {
	patched
	fields, ofItems []string
}

type patched interface {
	rest.Storage
	rest.Patcher
	rest.TableConvertor
}

var _ rest.ResetFieldsFilterStrategy = podPart{}

func (v podPart) GetResetFieldsFilter() map[fieldpath.APIVersion]fieldpath.Filter {
	var kept []*fieldpath.SetMatcher
	for _, name := range v.fields {
		if v.ofItems == nil {
			kept = append(kept, fieldpath.MakePrefixMatcherOrDie("spec", name))
		}
		for _, of := range v.ofItems {
			kept = append(kept, fieldpath.MakePrefixMatcherOrDie("spec", name, fieldpath.MatchAnyPathElement(), of))
		}
	}
	return map[fieldpath.APIVersion]fieldpath.Filter{"v1": fieldpath.NewIncludeMatcherFilter(kept...)}
}

// prepareEphemeral keeps everything but the ephemeral containers.
func prepareEphemeral(_ context.Context, p, old *corev1.Pod) {
	added := p.Spec.EphemeralContainers
	p.Spec = *old.Spec.DeepCopy()
	p.Spec.EphemeralContainers = added
	p.Status = old.Status
	metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
	dropDisabled(p)
	countGeneration(p, old)
}

// validateEphemeralUpdate: ephemeral containers are only ever added.
func validateEphemeralUpdate(p, old *corev1.Pod) field.ErrorList {
	if isMirror(old) {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := validatePodAlways(p)
	errs = append(errs, validateAnnotationUpdate(p, old)...)
	path := specPath.Child("ephemeralContainers")
	for _, was := range old.Spec.EphemeralContainers {
		at := slices.IndexFunc(p.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == was.Name })
		if at < 0 {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name)))
			continue
		}
		if now := p.Spec.EphemeralContainers[at]; !equality.Semantic.DeepEqual(was, now) {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, diff.Diff(was, now))))
		}
	}
	return errs
}

func isMirror(p *corev1.Pod) bool {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// prepareResize keeps everything but resources and resize policies. If containers were added or removed it keeps what
// the client sent, for validation to refuse.
func prepareResize(_ context.Context, p, old *corev1.Pod) {
	if len(p.Spec.Containers) == len(old.Spec.Containers) && len(p.Spec.InitContainers) == len(old.Spec.InitContainers) {
		containers := withResources(p.Spec.Containers, old.Spec.Containers)
		inits := withResources(p.Spec.InitContainers, old.Spec.InitContainers)
		resources := p.Spec.Resources
		p.Spec = *old.Spec.DeepCopy()
		p.Spec.Containers, p.Spec.InitContainers, p.Spec.Resources = containers, inits, resources
		p.Status = old.Status
		metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
	}
	if p.Spec.Resources == nil && old.Spec.Resources != nil {
		p.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
	defaultPodResources(p)
	dropDisabled(p)
	countGeneration(p, old)
}

// withResources is was with the resources of now. Lists with renamed or moved containers stay, to be refused later.
func withResources(now, was []corev1.Container) []corev1.Container {
	merged := slices.Clone(was)
	for i, c := range now {
		if c.Name != was[i].Name {
			return now
		}
		merged[i].Resources, merged[i].ResizePolicy = c.Resources, c.ResizePolicy
	}
	return merged
}

// validateResize lets cpu and memory change, neither removed nor so that the pod's QoS class would be another.
func validateResize(p, old *corev1.Pod) field.ErrorList {
	if isMirror(old) {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	errs := validatePodAlways(p)
	if qos.GetPodQOS(old) != qos.ComputePodQOS(p) {
		errs = append(errs, field.Invalid(specPath, p.Status.QOSClass, "Pod QOS Class may not change as a result of resizing"))
	}
	if !nodeCanResize(old) {
		errs = append(errs, field.Forbidden(specPath, "Pod running on node without support for resize"))
	}
	spec := p.Spec.DeepCopy()
	if hasPodResources(old) || hasPodResources(p) {
		errs = append(errs, resizePod(spec, &old.Spec)...)
	}
	if order := sameContainers(p, old); len(order) > 0 {
		return append(errs, order...)
	}
	for i := range spec.InitContainers {
		errs = append(errs, resizeContainer(&spec.InitContainers[i], &old.Spec.InitContainers[i], true, specPath.Child("initContainers").Index(i))...)
	}
	for i := range spec.Containers {
		errs = append(errs, resizeContainer(&spec.Containers[i], &old.Spec.Containers[i], false, specPath.Child("containers").Index(i))...)
	}
	if !equality.Semantic.DeepEqual(p.Spec.Volumes, old.Spec.Volumes) {
		errs = append(errs, field.Forbidden(specPath.Child("volumes"),
			"volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled"))
	}
	if len(errs) == 0 && !equality.Semantic.DeepEqual(*spec, old.Spec) {
		errs = append(errs, field.Forbidden(specPath, "only cpu and memory resources are mutable"))
	}
	return errs
}

// nodeCanResize: a kubelet that can resize reports what a running container has.
func nodeCanResize(p *corev1.Pod) bool {
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running != nil {
			return c.Resources != nil
		}
	}
	return true
}

func hasPodResources(p *corev1.Pod) bool {
	r := p.Spec.Resources
	return r != nil && len(r.Requests)+len(r.Limits) > 0
}

func sameContainers(p, old *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for _, list := range []struct {
		name     string
		now, was []corev1.Container
	}{
		{"containers", p.Spec.Containers, old.Spec.Containers},
		{"initContainers", p.Spec.InitContainers, old.Spec.InitContainers},
	} {
		path := specPath.Child(list.name)
		if len(list.now) != len(list.was) {
			errs = append(errs, field.Forbidden(path, list.name+" may not be added or removed on resize"))
			continue
		}
		for i := range list.was {
			if list.now[i].Name != list.was[i].Name {
				errs = append(errs, field.Forbidden(path.Index(i).Child("name"), list.name+" may not be renamed or reordered on resize"))
			}
		}
	}
	return errs
}

// resizePod checks pod-level resources and sets their cpu and memory back in spec.
func resizePod(spec, old *corev1.PodSpec) field.ErrorList {
	path := specPath.Child("resources")
	if old.Resources != nil && spec.Resources == nil {
		return field.ErrorList{field.Forbidden(path, "pod-level resources cannot be removed")}
	}
	var errs field.ErrorList
	was := old.Resources
	if was == nil {
		was = &corev1.ResourceRequirements{}
	}
	if removed(spec.Resources.Requests, was.Requests) {
		errs = append(errs, field.Forbidden(path.Child("requests"), "pod-level resource requests cannot be removed"))
	}
	if removed(spec.Resources.Limits, was.Limits) {
		errs = append(errs, field.Forbidden(path.Child("limits"), "pod-level resource limits cannot be removed"))
	}
	setBack(spec.Resources, was)
	if old.Resources == nil && equality.Semantic.DeepEqual(*spec.Resources, corev1.ResourceRequirements{}) {
		spec.Resources = nil
	}
	if !equality.Semantic.DeepEqual(spec.Resources, old.Resources) {
		errs = append(errs, field.Forbidden(specPath, "only cpu and memory resources are mutable at pod-level"))
	}
	return errs
}

// resizeContainer checks one container and sets its cpu and memory back.
func resizeContainer(c, old *corev1.Container, isInit bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if removed(c.Resources.Requests, old.Resources.Requests) {
		errs = append(errs, field.Forbidden(path.Child("resources", "requests"), "resource requests cannot be removed"))
	}
	if removed(c.Resources.Limits, old.Resources.Limits) {
		errs = append(errs, field.Forbidden(path.Child("resources", "limits"), "resource limits cannot be removed"))
	}
	changed := !equality.Semantic.DeepEqual(*c, *old)
	setBack(&c.Resources, &old.Resources)
	if !equality.Semantic.DeepEqual(*c, *old) {
		if isInit {
			return append(errs, field.Forbidden(path, "only cpu and memory resources for init or sidecar containers are mutable"))
		}
		return append(errs, field.Forbidden(specPath, "only cpu and memory resources are mutable"))
	}
	sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	if isInit && changed && !sidecar {
		for _, policy := range c.ResizePolicy {
			if policy.RestartPolicy == corev1.RestartContainer {
				errs = append(errs, field.Forbidden(path, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"))
			}
		}
	}
	return errs
}

func removed(now, was corev1.ResourceList) bool {
	for name := range was {
		if _, ok := now[name]; !ok {
			return true
		}
	}
	return false
}

// setBack sets cpu and memory to what they were, and leaves all else as it is.
func setBack(now, was *corev1.ResourceRequirements) {
	now.Limits = listSetBack(now.Limits, was.Limits)
	now.Requests = listSetBack(now.Requests, was.Requests)
}

func listSetBack(now, was corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, quantity := range now {
		if name != corev1.ResourceCPU && name != corev1.ResourceMemory {
			out[name] = quantity
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if quantity, ok := was[name]; ok {
			out[name] = quantity
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
