package core

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/net"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// validatePodStatusUpdate checks what a kubelet or the scheduler reports.
func validatePodStatusUpdate(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("status")
	s, was := &p.Status, &old.Status
	errs := validateAnnotationUpdate(p, old)
	errs = append(errs, podspec.ValidateAnnotations(p.Annotations, &p.Spec, field.NewPath("metadata", "annotations"))...)
	errs = append(errs, validateConditions(s.Conditions, path.Child("conditions"))...)
	errs = append(errs, validateNomination(p, old, path.Child("nominatedNodeName"))...)
	if s.ObservedGeneration < 0 {
		errs = append(errs, field.Invalid(path.Child("observedGeneration"), s.ObservedGeneration, "must be a non-negative integer"))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(s.QOSClass, was.QOSClass, path.Child("qosClass"))...)
	containers, inits, ephemeral := path.Child("containerStatuses"), path.Child("initContainerStatuses"), path.Child("ephemeralContainerStatuses")
	if !restartsAll(&old.Spec) {
		errs = append(errs, validateTransition(s.ContainerStatuses, was.ContainerStatuses, mayRestart(&old.Spec, old.Spec.Containers), containers)...)
		errs = append(errs, validateTransition(s.InitContainerStatuses, was.InitContainerStatuses, mayRestart(&old.Spec, old.Spec.InitContainers), inits)...)
	}
	never := func(string, int32) bool { return false }
	errs = append(errs, validateTransition(s.EphemeralContainerStatuses, was.EphemeralContainerStatuses, never, ephemeral)...)
	errs = append(errs, validateClaimStatuses(p, path.Child("resourceClaimStatuses"))...)
	errs = append(errs, validateExtendedClaim(p, path.Child("extendedResourceClaimStatus"))...)
	errs = append(errs, validatePodIPs(p, old)...)
	errs = append(errs, validateHostIPs(p, old)...)
	errs = append(errs, validateUsers(s.ContainerStatuses, p.Spec.OS, containers)...)
	errs = append(errs, validateUsers(s.InitContainerStatuses, p.Spec.OS, inits)...)
	errs = append(errs, validateUsers(s.EphemeralContainerStatuses, p.Spec.OS, ephemeral)...)
	errs = append(errs, validateDevicesHealth(p, s.ContainerStatuses, p.Spec.Containers, containers)...)
	errs = append(errs, validateDevicesHealth(p, s.InitContainerStatuses, p.Spec.InitContainers, inits)...)
	for i, c := range s.EphemeralContainerStatuses {
		if len(c.AllocatedResourcesStatus) > 0 {
			errs = append(errs, field.Forbidden(ephemeral.Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status"))
		}
	}
	return errs
}

func validateConditions(conditions []corev1.PodCondition, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range conditions {
		if c.ObservedGeneration < 0 {
			errs = append(errs, field.Invalid(path.Index(i).Child("observedGeneration"), c.ObservedGeneration, "must be a non-negative integer"))
		}
		errs = append(errs, check.Strings(validation.IsQualifiedName(string(c.Type)), path.Index(i).Child("Type"), string(c.Type))...)
	}
	return errs
}

func validateNomination(p, old *corev1.Pod, path *field.Path) field.ErrorList {
	name := p.Status.NominatedNodeName
	if name == "" || name == old.Status.NominatedNodeName {
		return nil
	}
	errs := volumesource.Name(name, path)
	if old.Spec.NodeName != "" {
		errs = append(errs, field.Forbidden(path, "may not be set on pods that are already bound to a node"))
	}
	return errs
}

// restartsAll: a container whose exit restarts all brings even those back that restart never.
func restartsAll(spec *corev1.PodSpec) bool {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range list {
			for _, rule := range c.RestartPolicyRules {
				if rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// mayRestart says of a container's name and exit code whether it is started again.
func mayRestart(spec *corev1.PodSpec, containers []corev1.Container) func(name string, exitCode int32) bool {
	return func(name string, exitCode int32) bool {
		at := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == name })
		if at < 0 {
			return false
		}
		policy := string(spec.RestartPolicy)
		if c := &containers[at]; c.RestartPolicy != nil {
			if ruleMatches(c.RestartPolicyRules, exitCode) {
				return true // every known action is some restart
			}
			policy = string(*c.RestartPolicy)
		}
		switch policy {
		case string(corev1.RestartPolicyOnFailure):
			return exitCode != 0
		case string(corev1.RestartPolicyNever):
			return false
		}
		return true
	}
}

func ruleMatches(rules []corev1.ContainerRestartRule, exitCode int32) bool {
	for _, r := range rules {
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, exitCode)
		switch r.ExitCodes.Operator {
		case corev1.ContainerRestartRuleOnExitCodesOpIn:
			if in {
				return true
			}
		case corev1.ContainerRestartRuleOnExitCodesOpNotIn:
			if !in {
				return true
			}
		}
	}
	return false
}

// validateTransition refuses to bring back a container that ended for good. The index is the old status's.
func validateTransition(now, was []corev1.ContainerStatus, restarts func(string, int32) bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, old := range was {
		if old.State.Terminated == nil {
			continue
		}
		for _, s := range now {
			if s.Name == old.Name && s.State.Terminated == nil && !restarts(old.Name, old.State.Terminated.ExitCode) {
				errs = append(errs, field.Forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}

func validateClaimStatuses(p *corev1.Pod, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, s := range p.Status.ResourceClaimStatuses {
		at := path.Index(i)
		if !slices.ContainsFunc(p.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool { return c.Name == s.Name }) {
			errs = append(errs, field.Invalid(at.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		if seen[s.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), s.Name))
		}
		seen[s.Name] = true
		if s.ResourceClaimName != nil {
			errs = append(errs, volumesource.Name(*s.ResourceClaimName, at.Child("resourceClaimName"))...)
		}
	}
	return errs
}

// validateExtendedClaim checks how extended resources were mapped to requests of a claim made for them.
func validateExtendedClaim(p *corev1.Pod, path *field.Path) field.ErrorList {
	status := p.Status.ExtendedResourceClaimStatus
	if status == nil {
		return nil
	}
	var errs field.ErrorList
	mappings := path.Child("requestMappings")
	if len(status.RequestMappings) == 0 {
		errs = append(errs, field.Required(mappings, "at least one request mapping is required"))
	}
	containers := map[string]*corev1.Container{}
	for c := range podspec.Containers(&p.Spec, nil) {
		containers[c.Name] = c
	}
	seen := map[corev1.ContainerExtendedResourceRequest]bool{}
	for i, m := range status.RequestMappings {
		at := mappings.Index(i)
		if c, ok := containers[m.ContainerName]; !ok {
			errs = append(errs, field.Invalid(at.Child("containerName"), m.ContainerName, "must match the name of an entry in spec.initContainers.name or spec.containers.name"))
		} else if _, ok := c.Resources.Requests[corev1.ResourceName(m.ResourceName)]; !ok {
			errs = append(errs, field.Invalid(at.Child("resourceName"), m.ResourceName,
				"must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"))
		}
		errs = append(errs, check.Strings(validation.IsDNS1123Label(m.RequestName), path.Child("requestName"), m.RequestName)...)
		if seen[m] {
			errs = append(errs, field.Duplicate(at.Child("containerName"), m.ContainerName),
				field.Duplicate(at.Child("resourceName"), m.ResourceName), field.Duplicate(at.Child("requestName"), m.RequestName))
		}
		seen[m] = true
	}
	if status.ResourceClaimName == "" {
		return append(errs, field.Required(path.Child("resourceClaimName"), ""))
	}
	return append(errs, volumesource.Name(status.ResourceClaimName, path.Child("resourceClaimName"))...)
}

func validatePodIPs(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("status", "podIPs")
	texts := func(ips []corev1.PodIP) (out []string) {
		for _, ip := range ips {
			out = append(out, ip.IP)
		}
		return out
	}
	ips := texts(p.Status.PodIPs)
	errs := validateStatusIPs(ips, texts(old.Status.PodIPs), p.Status.PodIPs, path)
	switch one := p.Status.PodIP; {
	case (one != "") != (len(ips) > 0):
		errs = append(errs, field.Invalid(path, p.Status.PodIPs, "podIP and podIPs must either both be set or both be unset"))
	case len(ips) > 0 && ips[0] != one:
		errs = append(errs, field.Invalid(path.Index(0).Child("ip"), ips[0], "must be equal to `podIP`"))
	}
	return errs
}

func validateHostIPs(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("status", "hostIPs")
	texts := func(ips []corev1.HostIP) (out []string) {
		for _, ip := range ips {
			out = append(out, ip.IP)
		}
		return out
	}
	ips := texts(p.Status.HostIPs)
	if len(ips) == 0 {
		return nil
	}
	var errs field.ErrorList
	if ips[0] != p.Status.HostIP {
		errs = append(errs, field.Invalid(path.Index(0).Child("ip"), ips[0], "must be equal to `hostIP`"))
	}
	return append(errs, validateStatusIPs(ips, texts(old.Status.HostIPs), p.Status.HostIPs, path)...)
}

// validateStatusIPs: valid addresses, at most one of each family; shown is what an error about all of them prints.
func validateStatusIPs(ips, existing []string, shown any, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, ip := range ips {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i), ip, true, existing)...)
	}
	if len(ips) < 2 {
		return errs
	}
	dual, err := net.IsDualStackIPStrings(ips)
	if err != nil {
		errs = append(errs, field.InternalError(path, fmt.Errorf("failed to check for dual stack with error:%w", err)))
	}
	if !dual || len(ips) > 2 {
		errs = append(errs, field.Invalid(path, shown, "may specify no more than one IP for each IP family"))
	}
	return errs
}

func validateUsers(statuses []corev1.ContainerStatus, os *corev1.PodOS, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, s := range statuses {
		if s.User == nil || s.User.Linux == nil {
			continue
		}
		at, user := path.Index(i).Child("user", "linux"), s.User.Linux
		if os != nil && os.Name == corev1.Windows {
			errs = append(errs, field.Forbidden(at, "cannot be set for a windows pod"))
			continue
		}
		if user.UID < 0 || user.UID > math.MaxUint32 {
			errs = append(errs, field.Invalid(at.Child("uid"), user.UID, fmt.Sprintf("must be between 0 and %d, inclusive", int64(math.MaxUint32))))
		}
		errs = append(errs, check.Strings(validation.IsValidGroupID(user.GID), at.Child("gid"), user.GID)...)
		for j, gid := range user.SupplementalGroups {
			errs = append(errs, check.Strings(validation.IsValidGroupID(gid), at.Child("supplementalGroups").Index(j), gid)...)
		}
	}
	return errs
}

// validateDevicesHealth checks what is said of the devices given to containers.
func validateDevicesHealth(p *corev1.Pod, statuses []corev1.ContainerStatus, containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, s := range statuses {
		for j, r := range s.AllocatedResourcesStatus {
			at := path.Index(i).Child("allocatedResourcesStatus").Index(j)
			for k := range containers {
				if containers[k].Name != s.Name {
					continue
				}
				if why := unknownResource(r.Name, &containers[k], p.Status.ExtendedResourceClaimStatus); why != "" {
					errs = append(errs, field.Invalid(at.Child("name"), r.Name, why))
				}
				break
			}
			errs = append(errs, validateHealths(r.Resources, at.Child("resources"))...)
		}
	}
	return errs
}

func validateHealths(list []corev1.ResourceHealth, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.ResourceID]bool{}
	for k, h := range list {
		at := path.Index(k)
		errs = append(errs, check.OneOf(h.Health, at.Child("health"), corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)...)
		switch m := h.Message; {
		case m == nil:
		case *m == "":
			errs = append(errs, field.Required(at.Child("message"), "must be non-empty if specified"))
		case len(*m) > corev1.ResourceHealthMessageMaxLength:
			errs = append(errs, field.TooLong(at.Child("message"), *m, corev1.ResourceHealthMessageMaxLength))
		}
		if seen[h.ResourceID] {
			errs = append(errs, field.Duplicate(at.Child("resourceID"), h.ResourceID))
		}
		seen[h.ResourceID] = true
	}
	return errs
}

// unknownResource says why the container cannot have been given the resource, or nothing.
func unknownResource(name corev1.ResourceName, c *corev1.Container, extended *corev1.PodExtendedResourceClaimStatus) string {
	claim, isClaim := strings.CutPrefix(string(name), "claim:")
	if !isClaim {
		if _, ok := c.Resources.Requests[name]; ok {
			return ""
		}
		return "must match one of the container's resource requests"
	}
	for _, r := range c.Resources.Claims {
		if claim == strings.TrimSuffix(r.Name+"/"+r.Request, "/") {
			return ""
		}
	}
	claimName, request, _ := strings.Cut(claim, "/")
	if extended != nil && request != "" && claimName == extended.ResourceClaimName {
		for _, m := range extended.RequestMappings {
			quantity, ok := c.Resources.Requests[corev1.ResourceName(m.ResourceName)]
			if m.ContainerName == c.Name && m.RequestName == request && ok && !quantity.IsZero() {
				return ""
			}
		}
	}
	return "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when " +
		"container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty"
}
