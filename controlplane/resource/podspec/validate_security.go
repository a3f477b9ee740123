package podspec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/node/util/sysctl"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

func validatePodSecurity(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	sc := spec.SecurityContext
	if sc == nil {
		return nil
	}
	var errs field.ErrorList
	errs = append(errs, validateID(sc.FSGroup, validation.IsValidGroupID, path.Child("fsGroup"))...)
	errs = append(errs, validateID(sc.RunAsUser, validation.IsValidUserID, path.Child("runAsUser"))...)
	errs = append(errs, validateID(sc.RunAsGroup, validation.IsValidGroupID, path.Child("runAsGroup"))...)
	for i := range sc.SupplementalGroups {
		errs = append(errs, validateID(&sc.SupplementalGroups[i], validation.IsValidGroupID, path.Child("supplementalGroups").Index(i))...)
	}
	errs = append(errs, validateSysctls(spec, path.Child("sysctls"))...)
	if p := sc.FSGroupChangePolicy; p != nil {
		errs = append(errs, check.OneOf(*p, path.Child("fsGroupChangePolicy"), corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)...)
	}
	errs = append(errs, validateSeccomp(sc.SeccompProfile, path.Child("seccompProfile"))...)
	errs = append(errs, validateWindowsOptions(sc.WindowsOptions, path.Child("windowsOptions"))...)
	errs = append(errs, ValidateAppArmor(sc.AppArmorProfile, path.Child("appArmorProfile"))...)
	if p := sc.SupplementalGroupsPolicy; p != nil {
		errs = append(errs, check.OneOf(*p, path.Child("supplementalGroupsPolicy"), corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	if p := sc.SELinuxChangePolicy; p != nil {
		errs = append(errs, check.OneOf(*p, path.Child("seLinuxChangePolicy"), corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)...)
	}
	return errs
}

func validateID(id *int64, valid func(int64) []string, path *field.Path) field.ErrorList {
	if id == nil {
		return nil
	}
	return check.Strings(valid(*id), path, *id)
}

const (
	sysctlSegment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
	sysctlLength  = 253
)

var sysctlName = regexp.MustCompile("^(" + sysctlSegment + `[\./])*` + sysctlSegment + "$")

func validateSysctls(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, s := range spec.SecurityContext.Sysctls {
		at := path.Index(i).Child("name")
		switch {
		case s.Name == "":
			errs = append(errs, field.Required(at, ""))
		case len(s.Name) > sysctlLength || !sysctlName.MatchString(s.Name):
			errs = append(errs, field.Invalid(at, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", sysctlLength, sysctlName)))
		case seen.Has(s.Name):
			errs = append(errs, field.Duplicate(at, s.Name))
		}
		seen.Insert(s.Name)
		// In the host's namespace it would be the host's setting.
		switch namespace, _, _ := sysctl.GetNamespace(s.Name); {
		case spec.HostNetwork && namespace == sysctl.NetNamespace:
			errs = append(errs, field.Invalid(at, s.Name, "may not be specified when 'hostNetwork' is true"))
		case spec.HostIPC && namespace == sysctl.IPCNamespace:
			errs = append(errs, field.Invalid(at, s.Name, "may not be specified when 'hostIPC' is true"))
		}
	}
	return errs
}

func validateSeccomp(p *corev1.SeccompProfile, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	at := path.Child("localhostProfile")
	var errs field.ErrorList
	if p.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = append(errs, check.OneOf(p.Type, path.Child("type"),
			corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)...)
	}
	switch isLocal := p.Type == corev1.SeccompProfileTypeLocalhost; {
	case isLocal && p.LocalhostProfile == nil:
		errs = append(errs, field.Required(at, "must be set when seccomp type is Localhost"))
	case isLocal:
		errs = append(errs, volumesource.Below(*p.LocalhostProfile, at)...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(at, p, "can only be set when seccomp type is Localhost"))
	}
	return errs
}

// ValidateAppArmor checks a profile; nil is accepted.
func ValidateAppArmor(p *corev1.AppArmorProfile, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	if p.Type == "" {
		return field.ErrorList{field.Required(path.Child("type"), "type is required when appArmorProfile is set")}
	}
	if errs := check.OneOf(p.Type, path.Child("type"), corev1.AppArmorProfileTypeLocalhost,
		corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined); len(errs) > 0 {
		return errs
	}
	at := path.Child("localhostProfile")
	if p.Type != corev1.AppArmorProfileTypeLocalhost {
		if p.LocalhostProfile != nil {
			return field.ErrorList{field.Invalid(at, p.LocalhostProfile, "can only be set when AppArmor type is Localhost")}
		}
		return nil
	}
	const mustBeSet, most = "must be set when AppArmor type is Localhost", 4095 // PATH_MAX - 1
	if p.LocalhostProfile == nil {
		return field.ErrorList{field.Required(at, mustBeSet)}
	}
	var errs field.ErrorList
	switch name := *p.LocalhostProfile; {
	case strings.TrimSpace(name) != name:
		errs = append(errs, field.Invalid(at, name, "must not be padded with whitespace"))
	case name == "":
		errs = append(errs, field.Required(at, mustBeSet))
	}
	if len(*p.LocalhostProfile) > most {
		errs = append(errs, field.TooLong(at, "", most))
	}
	return errs
}

func validateSecurity(sc *corev1.SecurityContext, hostUsers bool, path *field.Path) field.ErrorList {
	if sc == nil {
		return nil
	}
	errs := validateID(sc.RunAsUser, validation.IsValidUserID, path.Child("runAsUser"))
	errs = append(errs, validateID(sc.RunAsGroup, validation.IsValidGroupID, path.Child("runAsGroup"))...)
	if sc.ProcMount != nil {
		at := path.Child("procMount")
		errs = append(errs, check.OneOf(*sc.ProcMount, at, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if hostUsers && *sc.ProcMount == corev1.UnmaskedProcMount {
			errs = append(errs, field.Invalid(at, sc.ProcMount, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, validateSeccomp(sc.SeccompProfile, path.Child("seccompProfile"))...)
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		const pair = "cannot set `allowPrivilegeEscalation` to false and "
		if isTrue(sc.Privileged) {
			errs = append(errs, field.Invalid(path, sc, pair+"`privileged` to true"))
		}
		if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
			errs = append(errs, field.Invalid(path, sc, pair+"`capabilities.Add` CAP_SYS_ADMIN"))
		}
	}
	errs = append(errs, validateWindowsOptions(sc.WindowsOptions, path.Child("windowsOptions"))...)
	return append(errs, ValidateAppArmor(sc.AppArmorProfile, path.Child("appArmorProfile"))...)
}
