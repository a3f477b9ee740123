package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

// validateOS: a pod that says which system it is for may not ask for what only the other one has.
func validateOS(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	if spec.OS == nil {
		return nil
	}
	if spec.OS.Name == "" {
		return field.ErrorList{field.Required(path.Child("os", "name"), "")}
	}
	if errs := check.OneOf(spec.OS.Name, path.Child("os"), corev1.Linux, corev1.Windows); len(errs) > 0 {
		return errs
	}
	var errs field.ErrorList
	refuse := func(set bool, at *field.Path, why string) {
		if set {
			errs = append(errs, field.Forbidden(at, why))
		}
	}
	if spec.OS.Name == corev1.Windows {
		return validateForWindows(spec, path)
	}
	const onLinux = "windows options cannot be set for a linux pod"
	if sc := spec.SecurityContext; sc != nil {
		refuse(sc.WindowsOptions != nil, path.Child("securityContext", "windowsOptions"), onLinux)
	}
	for c, at := range Containers(spec, path) {
		if sc := c.SecurityContext; sc != nil {
			refuse(sc.WindowsOptions != nil, at.Child("securityContext", "windowsOptions"), onLinux)
		}
	}
	return errs
}

func validateForWindows(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(at *field.Path, set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), "cannot be set for a windows pod"))
		}
	}
	if sc, at := spec.SecurityContext, path.Child("securityContext"); sc != nil {
		refuse(at, sc.AppArmorProfile != nil, "appArmorProfile")
		refuse(at, sc.SELinuxOptions != nil, "seLinuxOptions")
		refuse(at, sc.SeccompProfile != nil, "seccompProfile")
		refuse(at, sc.FSGroup != nil, "fsGroup")
		refuse(at, sc.FSGroupChangePolicy != nil, "fsGroupChangePolicy")
		refuse(at, len(sc.Sysctls) > 0, "sysctls")
		refuse(at, sc.RunAsUser != nil, "runAsUser")
		refuse(at, sc.RunAsGroup != nil, "runAsGroup")
		refuse(at, sc.SupplementalGroups != nil, "supplementalGroups")
		refuse(at, sc.SupplementalGroupsPolicy != nil, "supplementalGroupsPolicy")
		refuse(at, sc.SELinuxChangePolicy != nil, "seLinuxChangePolicy")
	}
	refuse(path, spec.HostUsers != nil, "hostUsers")
	refuse(path, spec.HostPID, "hostPID")
	refuse(path, spec.HostIPC, "hostIPC")
	refuse(path, spec.ShareProcessNamespace != nil, "shareProcessNamespace")
	for c, container := range Containers(spec, path) {
		sc, at := c.SecurityContext, container.Child("securityContext")
		if sc == nil {
			continue
		}
		refuse(at, sc.AppArmorProfile != nil, "appArmorProfile")
		refuse(at, sc.SELinuxOptions != nil, "seLinuxOptions")
		refuse(at, sc.SeccompProfile != nil, "seccompProfile")
		refuse(at, sc.Capabilities != nil, "capabilities")
		refuse(at, sc.ReadOnlyRootFilesystem != nil, "readOnlyRootFilesystem")
		refuse(at, sc.Privileged != nil, "privileged")
		refuse(at, sc.AllowPrivilegeEscalation != nil, "allowPrivilegeEscalation")
		refuse(at, sc.ProcMount != nil, "procMount")
		refuse(at, sc.RunAsUser != nil, "runAsUser")
		refuse(at, sc.RunAsGroup != nil, "runAsGroup")
	}
	return errs
}

// validateHostProcess: Windows' host processes are all of a pod or none of it.
func validateHostProcess(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var ofPod *bool
	if sc := spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		ofPod = sc.WindowsOptions.HostProcess
	}
	containers, hosted := 0, 0
	for c, at := range Containers(spec, path) {
		containers++
		var own *bool
		if sc := c.SecurityContext; sc != nil && sc.WindowsOptions != nil {
			own = sc.WindowsOptions.HostProcess
		}
		if ofPod != nil && own != nil && *ofPod != *own {
			errs = append(errs, field.Invalid(at.Child("securityContext", "windowsOptions", "hostProcess"), *own,
				fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *ofPod)))
		}
		if isTrue(own) || own == nil && isTrue(ofPod) {
			hosted++
		}
	}
	if hosted == 0 {
		return errs
	}
	if hosted != containers {
		errs = append(errs, field.Invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !spec.HostNetwork {
		errs = append(errs, field.Invalid(path.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	return errs
}

// Limits of Windows' names, in characters, and of a credential spec, in bytes.
const (
	mostCredentialKiB = 64
	mostDomain        = 256
	mostUser          = 104
)

const windowsLabel = `[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?`

var (
	controlCharacters = regexp.MustCompile(`[[:cntrl:]]+`)
	netBIOSName       = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	windowsDomain     = regexp.MustCompile(`^` + windowsLabel + `(?:\.` + windowsLabel + `)*$`)
	badUserCharacters = regexp.MustCompile(`["/\\:;|=,\+\*\?<>@\[\]]`)
	onlyDotsAndSpaces = regexp.MustCompile(`^[\. ]+$`)
)

func validateWindowsOptions(o *corev1.WindowsSecurityContextOptions, path *field.Path) field.ErrorList {
	if o == nil {
		return nil
	}
	var errs field.ErrorList
	if o.GMSACredentialSpecName != nil {
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(*o.GMSACredentialSpecName), path.Child("gmsaCredentialSpecName"), o.GMSACredentialSpecName)...)
	}
	if spec, at := o.GMSACredentialSpec, path.Child("gmsaCredentialSpec"); spec != nil {
		if *spec == "" {
			errs = append(errs, field.Invalid(at, spec, "gmsaCredentialSpec cannot be an empty string"))
		} else if len(*spec) > mostCredentialKiB*1024 {
			errs = append(errs, field.Invalid(at, spec, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", mostCredentialKiB)))
		}
	}
	if o.RunAsUserName != nil {
		for _, msg := range windowsUser(*o.RunAsUserName) {
			errs = append(errs, field.Invalid(path.Child("runAsUserName"), o.RunAsUserName, "runAsUserName"+msg))
		}
	}
	return errs
}

// windowsUser says what is wrong with [domain\]user.
func windowsUser(name string) []string {
	parts := strings.Split(name, `\`)
	switch {
	case name == "":
		return []string{" cannot be an empty string"}
	case controlCharacters.MatchString(name):
		return []string{" cannot contain control characters"}
	case len(parts) > 2:
		return []string{" cannot contain more than one backslash"}
	}
	var msgs []string
	user := parts[len(parts)-1]
	if len(parts) == 2 {
		domain := parts[0]
		if len(domain) >= mostDomain {
			msgs = append(msgs, fmt.Sprintf("'s Domain length must be under %d characters", mostDomain))
		}
		if !netBIOSName.MatchString(domain) && !windowsDomain.MatchString(domain) {
			msgs = append(msgs, "'s Domain doesn't match the NetBios nor the DNS format")
		}
	}
	switch {
	case user == "":
		msgs = append(msgs, "'s User cannot be empty")
	case len(user) > mostUser:
		msgs = append(msgs, fmt.Sprintf("'s User length must not be longer than %d characters", mostUser))
	}
	if onlyDotsAndSpaces.MatchString(user) {
		msgs = append(msgs, "'s User cannot contain only periods or spaces")
	}
	if badUserCharacters.MatchString(user) {
		msgs = append(msgs, `'s User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
	return msgs
}
