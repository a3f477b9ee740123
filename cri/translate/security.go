package translate

import (
	"fmt"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maskedPaths and readonlyPaths are the kubelet's lists for procMount Default
// with what later advisories added (HOSTILE OC6, OC7).
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// setPaths: a list in the request replaces the runtime's. On the wire an empty
// list cannot be told from none, so empty means the default; it means none only
// in a user namespace, where Kubernetes allows procMount Unmasked (KEP-4265,
// HOSTILE OC16).
func setPaths(in Input, s *specs.Spec) error {
	if privileged(in) {
		return nil
	}
	sc := in.Config.GetLinux().GetSecurityContext()
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = maskedPaths, readonlyPaths
	if in.Sandbox.Namespaces[specs.UserNamespace] != "" && len(sc.GetMaskedPaths()) == 0 && len(sc.GetReadonlyPaths()) == 0 {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	}
	if l := sc.GetMaskedPaths(); len(l) > 0 {
		s.Linux.MaskedPaths = l
	}
	if l := sc.GetReadonlyPaths(); len(l) > 0 {
		s.Linux.ReadonlyPaths = l
	}
	for _, p := range append(append([]string(nil), s.Linux.MaskedPaths...), s.Linux.ReadonlyPaths...) {
		if !strings.HasPrefix(p, "/") {
			return invalid("masked or read-only path %q is not absolute", p)
		}
	}
	return nil
}

// Profile is the seccomp or AppArmor profile that a request means, with the
// deprecated string form read too.
func Profile(p *runtimeapi.SecurityProfile, deprecated string) (*runtimeapi.SecurityProfile, error) {
	if p != nil {
		if p.GetProfileType() == runtimeapi.SecurityProfile_Localhost && p.GetLocalhostRef() == "" {
			// An empty name must never mean "no confinement" (CVE-2023-2431).
			return nil, invalid("a Localhost security profile needs localhost_ref")
		}
		if _, ok := runtimeapi.SecurityProfile_ProfileType_name[int32(p.GetProfileType())]; !ok {
			return nil, invalid("unknown security profile type %d", p.GetProfileType())
		}
		return p, nil
	}
	name, local := strings.CutPrefix(deprecated, "localhost/")
	switch {
	case local && name != "":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: name}, nil
	case deprecated == "runtime/default" || deprecated == "docker/default":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case deprecated == "" || deprecated == "unconfined":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	}
	return nil, invalid("unknown security profile %q", deprecated)
}

// setSeccomp resolves the profile for the capabilities that were granted, so it
// comes after setCapabilities.
func setSeccomp(in Input, s *specs.Spec) error {
	sc := in.Config.GetLinux().GetSecurityContext()
	p, err := Profile(sc.GetSeccomp(), sc.GetSeccompProfilePath())
	if err != nil {
		return err
	}
	if privileged(in) {
		return nil
	}
	switch p.GetProfileType() {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s)
	case runtimeapi.SecurityProfile_Localhost:
		if len(in.SeccompProfile) == 0 {
			return invalid("seccomp profile %s is empty", p.GetLocalhostRef())
		}
		s.Linux.Seccomp, err = seccomp.LoadProfile(string(in.SeccompProfile), s)
		if err == nil && s.Linux.Seccomp == nil {
			return invalid("seccomp profile %s has no default action", p.GetLocalhostRef())
		}
	}
	if err != nil {
		return invalid("seccomp profile: %v", err)
	}
	return nil
}

// AppArmor is the profile that a container means: none named is the runtime's
// default, which a privileged container has no use for; one that is named counts
// for that too.
func AppArmor(sc *runtimeapi.LinuxContainerSecurityContext) (name string, kind runtimeapi.SecurityProfile_ProfileType, err error) {
	p, err := Profile(sc.GetApparmor(), sc.GetApparmorProfile())
	if err != nil {
		return "", 0, err
	}
	kind = p.GetProfileType()
	if sc.GetApparmor() == nil && sc.GetApparmorProfile() == "" {
		kind = runtimeapi.SecurityProfile_RuntimeDefault
	}
	if kind == runtimeapi.SecurityProfile_RuntimeDefault && sc.GetPrivileged() {
		kind = runtimeapi.SecurityProfile_Unconfined
	}
	return strings.TrimPrefix(p.GetLocalhostRef(), "localhost/"), kind, nil
}

// setLSM: a profile that the host cannot enforce is an error, except the
// runtime's default, which asks for what the host has.
func setLSM(in Input, s *specs.Spec) error {
	sc := in.Config.GetLinux().GetSecurityContext()
	name, kind, err := AppArmor(sc)
	if err != nil {
		return err
	}
	switch {
	case kind == runtimeapi.SecurityProfile_RuntimeDefault:
		s.Process.ApparmorProfile = in.AppArmorDefault
	case kind == runtimeapi.SecurityProfile_Localhost && !in.Host.AppArmor:
		return invalid("AppArmor profile %q is asked for, but this node's kernel does not enforce AppArmor", name)
	case kind == runtimeapi.SecurityProfile_Localhost:
		s.Process.ApparmorProfile = name
	}
	if err := CheckSELinux(sc.GetSelinuxOptions(), in.Host); err != nil {
		return err
	}
	s.Process.SelinuxLabel, s.Linux.MountLabel = in.ProcessLabel, in.MountLabel
	return nil
}

// CheckSELinux refuses options where SELinux is off, unless they are to be
// ignored there. Upstream's kubelet passes on whatever a manifest says, and
// manifests say it for the hosts that have SELinux.
func CheckSELinux(o *runtimeapi.SELinuxOption, h Host) error {
	if h.SELinux || h.IgnoreSELinux {
		return nil
	}
	if set := SELinuxSet(o); set != "" {
		return invalid("SELinux option %s is asked for, but SELinux is off on this host; turn it on, leave seLinuxOptions out, or run keelson with --ignore-selinux-options", set)
	}
	return nil
}

// SELinuxSet names the first option that is set, with its value; "" for none.
func SELinuxSet(o *runtimeapi.SELinuxOption) string {
	for _, f := range []struct{ name, value string }{{"type", o.GetType()}, {"level", o.GetLevel()}, {"user", o.GetUser()}, {"role", o.GetRole()}} {
		if f.value != "" {
			return fmt.Sprintf("%s %q", f.name, f.value)
		}
	}
	return ""
}
