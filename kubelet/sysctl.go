package kubelet

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// safeSysctls are namespaced, isolated and harmless to others (docs: Using sysctls in a Kubernetes Cluster).
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
	"net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat",
}

// namespacedSysctls are those that an administrator may allow on top: the kernel keeps them per namespace. Anything
// else would change the whole node.
var namespacedSysctls = []string{"kernel.sem", "kernel.shm*", "kernel.msg*", "fs.mqueue.*", "net.*"}

// Sysctls tells why a node that allows the given unsafe ones (names or patterns) must refuse a pod for its sysctls;
// "" when it need not. It is pure.
func Sysctls(pod *corev1.Pod, unsafe []string) string {
	if pod.Spec.SecurityContext == nil {
		return ""
	}
	matches := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(p string) bool {
			if prefix, wild := strings.CutSuffix(p, "*"); wild {
				return strings.HasPrefix(name, prefix)
			}
			return p == name
		})
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		switch {
		case path.Clean(name) != name || strings.Contains(name, "..") || strings.ContainsAny(s.Value, "+\n\x00"):
			return fmt.Sprintf("forbidden sysctl: %q is not well-formed", s.Name)
		case pod.Spec.HostNetwork && strings.HasPrefix(name, "net."):
			return fmt.Sprintf("forbidden sysctl: %q not allowed with host net enabled", s.Name)
		case pod.Spec.HostIPC && (strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem" || strings.HasPrefix(name, "fs.mqueue.")):
			return fmt.Sprintf("forbidden sysctl: %q not allowed with host ipc enabled", s.Name)
		case matches(safeSysctls, name), matches(namespacedSysctls, name) && matches(unsafe, name):
		default:
			return fmt.Sprintf("forbidden sysctl: %q not allowlisted", s.Name)
		}
	}
	return ""
}
