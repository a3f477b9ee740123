package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/resourcename"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// requirements says how to check resource requirements: which names are allowed, and which claims can be named.
type requirements struct {
	name   func(corev1.ResourceName, *field.Path) field.ErrorList
	claims sets.Set[string]
}

func (r requirements) validate(req *corev1.ResourceRequirements, path *field.Path) field.ErrorList {
	limits, requests := path.Child("limits"), path.Child("requests")
	var errs field.ErrorList
	hugePages, compute := false, false
	each := func(name corev1.ResourceName, quantity resource.Quantity, at *field.Path) {
		errs = append(errs, r.name(name, at)...)
		errs = append(errs, resourcename.ValidateQuantity(name, quantity, at)...)
		compute = compute || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	pages := func(name corev1.ResourceName, quantity resource.Quantity, at *field.Path) {
		if !resourcename.IsHugePage(name) {
			return
		}
		hugePages = true
		if !resourcename.IsHugePageMultiple(name, quantity) {
			errs = append(errs, field.Invalid(at, quantity.String(), resourcename.HugePageError(name, quantity)))
		}
	}
	for name, quantity := range req.Limits {
		each(name, quantity, limits.Key(string(name)))
		pages(name, quantity, limits.Key(string(name)))
	}
	for name, quantity := range req.Requests {
		each(name, quantity, requests.Key(string(name)))
		overcommit := resourcename.IsOvercommitAllowed(name)
		limit, limited := req.Limits[name]
		switch {
		case !limited && !overcommit:
			errs = append(errs, field.Required(limits, "Limit must be set for non overcommitable resources"))
		case !limited:
		case !overcommit && quantity.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(requests, quantity.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String())))
		case quantity.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requests, quantity.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String())))
		}
		pages(name, quantity, requests.Key(string(name)))
	}
	if hugePages && !compute {
		errs = append(errs, field.Forbidden(path, "HugePages require cpu or memory"))
	}
	return append(errs, validateClaimNames(req.Claims, r.claims, path.Child("claims"))...)
}

func podResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if errs := resourcename.Validate(name, path); len(errs) > 0 {
		return errs
	}
	if !resourcehelper.IsSupportedPodLevelResource(name) {
		return field.ErrorList{field.NotSupported(path, name, sets.List(resourcehelper.SupportedPodLevelResources()))}
	}
	return nil
}

// validatePodResources checks pod-level resources, also against those of the containers (KEP-2837).
func validatePodResources(spec *corev1.PodSpec, claims sets.Set[string], path *field.Path) field.ErrorList {
	if spec.Resources == nil {
		return nil
	}
	at := path.Child("resources")
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(at, "may not be set for a windows pod")}
	}
	var errs field.ErrorList
	if spec.Resources.Claims != nil {
		errs = append(errs, field.Forbidden(at.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	errs = append(errs, requirements{name: podResourceName, claims: claims}.validate(spec.Resources, at)...)
	pod := &corev1.Pod{Spec: *spec}
	least := func(list corev1.ResourceList, name corev1.ResourceName, needed resource.Quantity, part, what string) {
		if have, ok := list[name]; ok && needed.Cmp(have) > 0 {
			errs = append(errs, field.Invalid(at.Child(part).Key(string(name)), have.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container %s of %s", what, needed.String())))
		}
	}
	for name, sum := range resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{}) {
		least(spec.Resources.Requests, name, sum, "requests", "requests")
	}
	for name, sum := range resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{}) {
		if resourcename.IsHugePage(name) {
			least(spec.Resources.Limits, name, sum, "limits", "limits")
		}
	}
	for i, c := range spec.Containers {
		for name, limit := range c.Resources.Limits {
			if most, ok := spec.Resources.Limits[name]; ok && limit.Cmp(most) > 0 {
				errs = append(errs, field.Invalid(at.Child("containers").Index(i).Key(string(name)).Child("limits"), limit.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", most.String())))
			}
		}
	}
	return errs
}

func validateResourceClaims(meta *metav1.ObjectMeta, claims []corev1.PodResourceClaim, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, c := range claims {
		if meta != nil {
			if _, static := meta.Annotations[corev1.MirrorPodAnnotationKey]; static {
				errs = append(errs, field.Forbidden(field.NewPath(""), "static pods do not support resource claims"))
				continue
			}
		}
		at := path.Index(i)
		switch {
		case c.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case names.Has(c.Name):
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		default:
			errs = append(errs, check.Strings(validation.IsDNS1123Label(c.Name), at.Child("name"), c.Name)...)
			names.Insert(c.Name)
		}
		switch claim, template := c.ResourceClaimName, c.ResourceClaimTemplateName; {
		case claim != nil && template != nil:
			errs = append(errs, field.Invalid(at, c, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		case claim == nil && template == nil:
			errs = append(errs, field.Invalid(at, c, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
		if c.ResourceClaimName != nil {
			errs = append(errs, volumesource.Name(*c.ResourceClaimName, at.Child("resourceClaimName"))...)
		}
		if c.ResourceClaimTemplateName != nil {
			errs = append(errs, volumesource.Name(*c.ResourceClaimTemplateName, at.Child("resourceClaimTemplateName"))...)
		}
	}
	return errs
}

// validateClaimNames: a container names each claim as a whole once, or requests of it, each once.
func validateClaimNames(claims []corev1.ResourceClaim, known sets.Set[string], path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, c := range claims {
		at := path.Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		errs = append(errs, claimTwice(c, seen, at)...)
		if known.Has(c.Name) {
			continue
		}
		unknown := field.NotFound(at, c.Name)
		unknown.Detail = "must be one of the names in pod.spec.resourceClaims"
		if len(known) == 0 {
			unknown.Detail += " which is empty"
		} else {
			unknown.Detail += ": " + strings.Join(sets.List(known), ", ")
		}
		errs = append(errs, unknown)
	}
	return errs
}

func claimTwice(c corev1.ResourceClaim, seen sets.Set[string], path *field.Path) field.ErrorList {
	if seen.Has(c.Name) {
		return field.ErrorList{field.Duplicate(path, c.Name)}
	}
	var errs field.ErrorList
	key := c.Name
	if c.Request != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(c.Request), path.Child("request"), c.Request)...)
		key += "/" + c.Request
	}
	if seen.Has(key) {
		errs = append(errs, field.Duplicate(path, key))
	} else if c.Request == "" {
		for other := range seen {
			if name, _, part := strings.Cut(other, "/"); part && name == c.Name {
				errs = append(errs, field.Duplicate(path, c.Name))
			}
		}
	}
	seen.Insert(key)
	return errs
}
