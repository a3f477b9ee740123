package podspec

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

// ValidateTemplate checks a new pod template.
func ValidateTemplate(t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	spec := path.Child("spec")
	errs := metav1validation.ValidateLabels(t.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	errs = append(errs, ValidateAnnotations(t.Annotations, &t.Spec, path.Child("annotations"))...)
	errs = append(errs, Validate(&t.Spec, nil, spec)...)
	errs = append(errs, ValidateProfileAnnotations(t.Annotations, &t.Spec, spec)...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// ValidateTemplateUpdate checks a pod template that replaces old, if it differs. Old may be nil.
func ValidateTemplateUpdate(t, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	if old != nil && equality.Semantic.DeepEqual(t, old) {
		return nil
	}
	return ValidateTemplate(t, path)
}

// Validate checks a pod specification at path. Meta is the metadata of the pod, nil for a template.
func Validate(spec *corev1.PodSpec, meta *metav1.ObjectMeta, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.TerminationGracePeriodSeconds == nil {
		errs = append(errs, field.Required(path.Child("terminationGracePeriodSeconds"), ""))
	}
	volumes, volumeErrs := validateVolumes(spec.Volumes, meta, path.Child("volumes"))
	errs = append(errs, volumeErrs...)
	errs = append(errs, validateResourceClaims(meta, spec.ResourceClaims, path.Child("resourceClaims"))...)
	rules := newContainerRules(spec, volumes)
	errs = append(errs, rules.all(path)...)
	errs = append(errs, validatePodResources(spec, rules.claims, path)...)
	errs = append(errs, validateHostPorts(spec, meta != nil, path.Child("containers"))...)
	errs = append(errs, oneOf(spec.RestartPolicy, path.Child("restartPolicy"),
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, oneOf(spec.DNSPolicy, path.Child("dnsPolicy"),
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)...)
	errs = append(errs, metav1validation.ValidateLabels(spec.NodeSelector, path.Child("nodeSelector"))...)
	errs = append(errs, validatePodSecurity(spec, path.Child("securityContext"))...)
	errs = append(errs, validateSharing(spec, path)...)
	errs = append(errs, validateAffinity(spec.Affinity, path.Child("affinity"))...)
	errs = append(errs, validateDNSConfig(spec, path.Child("dnsConfig"))...)
	errs = append(errs, validateGates(spec, path)...)
	errs = append(errs, validateSpread(spec.TopologySpreadConstraints, path.Child("topologySpreadConstraints"))...)
	errs = append(errs, validateHostProcess(spec, path)...)
	errs = append(errs, validateUserNamespace(spec, path)...)
	errs = append(errs, validateNames(spec, path)...)
	errs = append(errs, ValidateTolerations(spec.Tolerations, path.Child("tolerations"))...)
	errs = append(errs, validateHostAliases(spec.HostAliases, path.Child("hostAliases"))...)
	errs = append(errs, validateClasses(spec, path)...)
	errs = append(errs, validateOS(spec, path)...)
	return append(errs, validateFileKeyVolumes(spec, path)...)
}

// oneOf checks a value that must be set. The error names the supported values in the order given.
func oneOf[S ~string](value S, path *field.Path, supported ...S) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return check.OneOf(value, path, supported...)
}

func validateGates(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, gate := range spec.ReadinessGates {
		name := string(gate.ConditionType)
		errs = append(errs, check.Strings(validation.IsQualifiedName(name), path.Child("readinessGates").Index(i).Child("conditionType"), name)...)
	}
	seen := sets.New[string]()
	for i, gate := range spec.SchedulingGates {
		at := path.Child("schedulingGates").Index(i)
		errs = append(errs, check.Strings(validation.IsQualifiedName(gate.Name), at, gate.Name)...)
		if seen.Has(gate.Name) {
			errs = append(errs, field.Duplicate(at, gate.Name))
		}
		seen.Insert(gate.Name)
	}
	return errs
}

// validateNames checks what names other objects, hosts and users of the pod.
func validateNames(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	errs := validateHostname(spec, path)
	if name := spec.ServiceAccountName; name != "" {
		errs = append(errs, check.Strings(apivalidation.ValidateServiceAccountName(name, false), path.Child("serviceAccountName"), name)...)
	}
	if spec.DeprecatedServiceAccount != spec.ServiceAccountName {
		errs = append(errs, field.Invalid(path.Child("deprecatedServiceAccount"), spec.DeprecatedServiceAccount,
			fmt.Sprintf("must be the same as serviceAccountName: %q", spec.ServiceAccountName)))
	}
	if spec.NodeName != "" {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(spec.NodeName, false), path.Child("nodeName"), spec.NodeName)...)
	}
	if seconds := spec.ActiveDeadlineSeconds; seconds != nil && (*seconds < 1 || *seconds > math.MaxInt32) {
		errs = append(errs, field.Invalid(path.Child("activeDeadlineSeconds"), *seconds, validation.InclusiveRangeError(1, math.MaxInt32)))
	}
	if spec.Hostname != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(spec.Hostname), path.Child("hostname"), spec.Hostname)...)
	}
	if spec.Subdomain != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(spec.Subdomain), path.Child("subdomain"), spec.Subdomain)...)
	}
	return errs
}

func validateHostname(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	name := spec.HostnameOverride
	if name == nil {
		return nil
	}
	const most = 64 // the kernel's
	at := path.Child("hostnameOverride")
	var errs field.ErrorList
	if isTrue(spec.SetHostnameAsFQDN) {
		errs = append(errs, field.Forbidden(at, "may not be specified when setHostnameAsFQDN is true"))
	}
	if spec.HostNetwork {
		errs = append(errs, field.Forbidden(at, "may not be specified when hostNetwork is true"))
	}
	if len(*name) > most {
		errs = append(errs, field.TooLong(at, "", most))
	}
	return append(errs, check.Strings(validation.IsDNS1123Subdomain(*name), at, *name)...)
}

func validateHostAliases(aliases []corev1.HostAlias, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, alias := range aliases {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i).Child("ip"), alias.IP, true, nil)...)
		for j, name := range alias.Hostnames {
			errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(name), path.Index(i).Child("hostnames").Index(j), name)...)
		}
	}
	return errs
}

// validateClasses checks priority, preemption and runtime class, and what the latter costs.
func validateClasses(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name := spec.PriorityClassName; name != "" {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(name, false), path.Child("priorityClassName"), name)...)
	}
	if name := spec.RuntimeClassName; name != nil {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*name, false), path.Child("runtimeClassName"), *name)...)
	}
	if policy := spec.PreemptionPolicy; policy != nil {
		errs = append(errs, oneOf(*policy, path.Child("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	if spec.Overhead != nil {
		errs = append(errs, requirements{name: resourcename.ValidateContainer}.validate(
			&corev1.ResourceRequirements{Limits: spec.Overhead}, path.Child("overhead"))...)
	}
	return errs
}

// Limits of resolv.conf, as upstream has them.
const (
	mostNameservers = 3
	mostSearches    = 32
	mostSearchText  = 2048
)

func validateDNSConfig(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	config := spec.DNSConfig
	if spec.DNSPolicy == corev1.DNSNone {
		switch {
		case config == nil:
			return field.ErrorList{field.Required(path, "must provide `dnsConfig` when `dnsPolicy` is None")}
		case len(config.Nameservers) == 0:
			return field.ErrorList{field.Required(path.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")}
		}
	}
	if config == nil {
		return nil
	}
	var errs field.ErrorList
	tooMany := func(name string, list []string, many bool, what string) {
		if many {
			errs = append(errs, field.Invalid(path.Child(name), list, "must not have more than "+what))
		}
	}
	tooMany("nameservers", config.Nameservers, len(config.Nameservers) > mostNameservers, fmt.Sprintf("%v nameservers", mostNameservers))
	for i, ip := range config.Nameservers {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Child("nameservers").Index(i), ip, true, nil)...)
	}
	tooMany("searches", config.Searches, len(config.Searches) > mostSearches, fmt.Sprintf("%v search paths", mostSearches))
	tooMany("searches", config.Searches, len(joined(config.Searches)) > mostSearchText,
		fmt.Sprintf("%v characters (including spaces) in the search list", mostSearchText))
	for i, search := range config.Searches {
		errs = append(errs, validateSearch(search, path.Child("searches").Index(i))...)
	}
	for i, option := range config.Options {
		if option.Name == "" {
			errs = append(errs, field.Required(path.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}
