package translate

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCaps are containerd's and Docker's: what images are written for.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// knownCaps are all capabilities of Linux 6.x, at the index that is their number
// (linux/capability.h).
var knownCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// CapabilityName gives the name of capability number n, "" if there is none.
func CapabilityName(n int) string {
	if n < 0 || n >= len(knownCaps) {
		return ""
	}
	return knownCaps[n]
}

func setCapabilities(in Input, s *specs.Spec) error {
	asked := in.Config.GetLinux().GetSecurityContext().GetCapabilities()
	if privileged(in) {
		all := slices.Clone(in.Host.Capabilities)
		s.Process.Capabilities = capSets(all, nil)
		return nil
	}
	add, addAll, err := capNames(asked.GetAddCapabilities())
	if err != nil {
		return err
	}
	drop, dropAll, err := capNames(asked.GetDropCapabilities())
	if err != nil {
		return err
	}
	ambient, ambientAll, err := capNames(asked.GetAddAmbientCapabilities())
	if err != nil {
		return err
	}
	caps := intersect(defaultCaps, in.Host.Capabilities)
	if addAll {
		caps = slices.Clone(in.Host.Capabilities)
	}
	if dropAll {
		caps = nil
	}
	if ambientAll {
		ambient = slices.Clone(in.Host.Capabilities)
		caps = slices.Clone(in.Host.Capabilities)
	}
	// A named one wins over ALL of the other list; a named drop over a named add.
	for _, c := range append(slices.Clone(add), ambient...) {
		if !slices.Contains(in.Host.Capabilities, c) {
			return invalid("capability %s is asked for, but the runtime on this node does not hold it", c)
		}
		if !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	gone := func(c string) bool { return slices.Contains(drop, c) }
	s.Process.Capabilities = capSets(slices.DeleteFunc(caps, gone), slices.DeleteFunc(ambient, gone))
	return nil
}

// capSets puts caps into every set but the inheritable and ambient ones: an
// inheritable set would let a file with inheritable capabilities raise them
// (CVE-2022-24769, HOSTILE OC4). The kernel demands that ambient is inheritable.
func capSets(caps, ambient []string) *specs.LinuxCapabilities {
	slices.Sort(caps)
	slices.Sort(ambient)
	return &specs.LinuxCapabilities{
		Bounding: caps, Effective: caps, Permitted: caps,
		Inheritable: ambient, Ambient: ambient,
	}
}

// capNames normalises names ("net_admin", "CAP_NET_ADMIN") and takes ALL out.
func capNames(in []string) (names []string, all bool, err error) {
	for _, n := range in {
		c := strings.ToUpper(n)
		if c == "ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if !slices.Contains(knownCaps, c) {
			return nil, false, invalid("unknown capability %q", n)
		}
		if !slices.Contains(names, c) {
			names = append(names, c)
		}
	}
	return names, all, nil
}

func intersect(a, b []string) []string {
	var out []string
	for _, x := range a {
		if slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}
