package act

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Paths hidden from, or read-only in, every container that does not ask for all of /proc (as containerd's default).
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/proc/interrupts", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	out := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		out.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		out.Ipc = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostPID {
		out.Pid = runtimeapi.NamespaceMode_NODE
	} else if s := pod.Spec.ShareProcessNamespace; s != nil && *s {
		out.Pid = runtimeapi.NamespaceMode_POD
	}
	return out
}

func (e *Executor) sandboxSecurity(pod *corev1.Pod) *runtimeapi.LinuxSandboxSecurityContext {
	out := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Privileged:       anyPrivileged(pod),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return out
	}
	out.Seccomp = seccomp(sc.SeccompProfile, true)
	out.SelinuxOptions = e.selinux(sc.SELinuxOptions)
	out.RunAsUser, out.RunAsGroup = int64Value(sc.RunAsUser), int64Value(sc.RunAsGroup)
	if out.RunAsUser == nil {
		out.RunAsGroup = nil // CRI: a group without a user is an error
	}
	out.SupplementalGroups = podGroups(sc)
	return out
}

func podGroups(sc *corev1.PodSecurityContext) []int64 {
	groups := slices.Clone(sc.SupplementalGroups)
	if sc.FSGroup != nil && !slices.Contains(groups, *sc.FSGroup) {
		groups = append(groups, *sc.FSGroup)
	}
	return groups
}

func anyPrivileged(pod *corev1.Pod) bool {
	return anyContainer(pod, func(sc *corev1.SecurityContext) bool { return is(sc.Privileged) })
}

// anyContainer tells whether the security context of any container, of whatever kind, is such.
func anyContainer(pod *corev1.Pod, such func(*corev1.SecurityContext) bool) bool {
	hit := func(c corev1.Container) bool { return c.SecurityContext != nil && such(c.SecurityContext) }
	return slices.ContainsFunc(pod.Spec.InitContainers, hit) || slices.ContainsFunc(pod.Spec.Containers, hit) ||
		slices.ContainsFunc(pod.Spec.EphemeralContainers, func(e corev1.EphemeralContainer) bool {
			return hit(corev1.Container(e.EphemeralContainerCommon))
		})
}

func int64Value(p *int64) *runtimeapi.Int64Value {
	if p == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *p}
}

// seccomp translates a profile; none means the default one or no confinement, as this node is configured.
func seccomp(p *corev1.SeccompProfile, byDefault bool) *runtimeapi.SecurityProfile {
	out := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	if p == nil {
		if byDefault {
			out.ProfileType = runtimeapi.SecurityProfile_RuntimeDefault
		}
		return out
	}
	switch p.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		out.ProfileType = runtimeapi.SecurityProfile_RuntimeDefault
	case corev1.SeccompProfileTypeLocalhost:
		out.ProfileType = runtimeapi.SecurityProfile_Localhost
		if p.LocalhostProfile != nil {
			out.LocalhostRef = seccompRoot + *p.LocalhostProfile
		}
	}
	return out
}

// seccompRoot is where localhost profiles are by convention.
const seccompRoot = "/var/lib/kubelet/seccomp/"

func apparmor(p *corev1.AppArmorProfile) *runtimeapi.SecurityProfile {
	if p == nil {
		return nil
	}
	out := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	switch p.Type {
	case corev1.AppArmorProfileTypeRuntimeDefault:
		out.ProfileType = runtimeapi.SecurityProfile_RuntimeDefault
	case corev1.AppArmorProfileTypeLocalhost:
		out.ProfileType = runtimeapi.SecurityProfile_Localhost
		if p.LocalhostProfile != nil {
			out.LocalhostRef = *p.LocalhostProfile
		}
	}
	return out
}

// effective is the container's security context with the pod's filled in where it says nothing.
func effective(pod *corev1.Pod, c *corev1.Container) corev1.SecurityContext {
	var out corev1.SecurityContext
	if c.SecurityContext != nil {
		out = *c.SecurityContext
	}
	p := pod.Spec.SecurityContext
	if p == nil {
		return out
	}
	if out.RunAsUser == nil {
		out.RunAsUser = p.RunAsUser
	}
	if out.RunAsGroup == nil {
		out.RunAsGroup = p.RunAsGroup
	}
	if out.RunAsNonRoot == nil {
		out.RunAsNonRoot = p.RunAsNonRoot
	}
	if out.SELinuxOptions == nil {
		out.SELinuxOptions = p.SELinuxOptions
	}
	if out.SeccompProfile == nil {
		out.SeccompProfile = p.SeccompProfile
	}
	if out.AppArmorProfile == nil {
		out.AppArmorProfile = p.AppArmorProfile
	}
	return out
}

// containerSecurity translates a container's security context. uid and user are the image's own user, of which one
// or none is set.
func (e *Executor) containerSecurity(pod *corev1.Pod, c *corev1.Container, uid *int64, user string) *runtimeapi.LinuxContainerSecurityContext {
	sc := effective(pod, c)
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces(pod),
		Seccomp:          seccomp(sc.SeccompProfile, e.cfg.SeccompDefault),
		Apparmor:         apparmor(sc.AppArmorProfile),
		SelinuxOptions:   e.selinux(sc.SELinuxOptions),
		RunAsUser:        int64Value(sc.RunAsUser), RunAsGroup: int64Value(sc.RunAsGroup),
		Privileged:     is(sc.Privileged),
		ReadonlyRootfs: is(sc.ReadOnlyRootFilesystem),
		NoNewPrivs:     sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
	}
	if out.RunAsUser == nil {
		if uid != nil {
			out.RunAsUser = int64Value(uid)
		} else {
			out.RunAsUsername = user
		}
	}
	if sc.Capabilities != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, k := range sc.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(k))
		}
		for _, k := range sc.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(k))
		}
	}
	if p := pod.Spec.SecurityContext; p != nil {
		out.SupplementalGroups = podGroups(p)
		if pol := p.SupplementalGroupsPolicy; pol != nil && *pol == corev1.SupplementalGroupsPolicyStrict {
			out.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
		}
	}
	unmasked := sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount
	if !out.Privileged && !unmasked {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	return out
}

func is(b *bool) bool { return b != nil && *b }

// ErrImageGone says that an image was removed between its pull and its use: it must be pulled again.
var ErrImageGone = errors.New("the image vanished after it was pulled")

// imageUser asks the runtime which user the image runs as.
func (e *Executor) imageUser(ctx context.Context, image *runtimeapi.ImageSpec) (uid *int64, user string, err error) {
	s, err := e.CRI.Image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: image})
	if err != nil {
		return nil, "", fmt.Errorf("status of image %q: %w", image.GetImage(), err)
	}
	if s.GetImage() == nil {
		return nil, "", fmt.Errorf("image %q: %w", image.GetImage(), ErrImageGone)
	}
	if u := s.GetImage().GetUid(); u != nil {
		return &u.Value, "", nil
	}
	return nil, s.GetImage().GetUsername(), nil
}

// checkNonRoot enforces runAsNonRoot against the user that the container will run as.
func checkNonRoot(pod *corev1.Pod, c *corev1.Container, uid *int64, user string) error {
	sc := effective(pod, c)
	if !is(sc.RunAsNonRoot) {
		return nil
	}
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return errors.New("container's runAsUser breaks non-root policy")
	case sc.RunAsUser != nil:
		return nil
	case uid != nil && *uid == 0, uid == nil && user == "":
		return errors.New("container has runAsNonRoot and image will run as root")
	case uid == nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", user)
	}
	return nil
}
