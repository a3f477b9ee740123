package translate

import (
	"regexp"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var sysctlName = regexp.MustCompile(`^[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*$`)

// Sysctls splits a pod's sysctls into those of its network namespace and the
// others. Only what a namespace of the pod owns may be set; names and values
// are held to a strict form, since a value once smuggled further settings past
// a runtime (CVE-2022-0811, HOSTILE OC13).
func Sysctls(pod *runtimeapi.PodSandboxConfig) (network, other map[string]string, err error) {
	ns := pod.GetLinux().GetSecurityContext().GetNamespaceOptions()
	for name, value := range pod.GetLinux().GetSysctls() {
		if !sysctlName.MatchString(name) {
			return nil, nil, invalid("sysctl name %q", name)
		}
		if strings.ContainsAny(value, "+=\n\x00") {
			return nil, nil, invalid("value %q of sysctl %s holds a character that no sysctl needs", value, name)
		}
		key := strings.ReplaceAll(name, "/", ".")
		switch {
		case strings.HasPrefix(key, "net."):
			if ns.GetNetwork() == runtimeapi.NamespaceMode_NODE {
				return nil, nil, invalid("sysctl %s in a pod of the host network would change the node", name)
			}
			network = put(network, key, value)
		case ipcSysctl(key):
			if ns.GetIpc() == runtimeapi.NamespaceMode_NODE {
				return nil, nil, invalid("sysctl %s in a pod of the host IPC namespace would change the node", name)
			}
			other = put(other, key, value)
		default:
			return nil, nil, invalid("sysctl %s belongs to no namespace of a pod and would change the node", name)
		}
	}
	return network, other, nil
}

func put(m map[string]string, k, v string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[k] = v
	return m
}

// ipcSysctl: ipc_namespaces(7).
func ipcSysctl(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced", "kernel.auto_msgmni":
		return true
	}
	return strings.HasPrefix(name, "fs.mqueue.")
}
