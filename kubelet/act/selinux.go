package act

import (
	"os"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SELinuxOn tells whether this host has SELinux, enforcing or permissive.
func SELinuxOn() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// selinux translates options for a host that has SELinux. On any other they are kept from the runtime, which would have
// to refuse them, so that manifests made for other hosts run here; tellSELinux says so.
func (e *Executor) selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil || !e.cfg.SELinux {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

// tellSELinux records, once for a sandbox, that a pod's options are without effect on this host.
func (e *Executor) tellSELinux(pod *corev1.Pod) {
	set := func(o *corev1.SELinuxOptions) bool { return o != nil && *o != corev1.SELinuxOptions{} }
	asked := pod.Spec.SecurityContext != nil && set(pod.Spec.SecurityContext.SELinuxOptions) ||
		anyContainer(pod, func(sc *corev1.SecurityContext) bool { return set(sc.SELinuxOptions) })
	if asked && !e.cfg.SELinux {
		e.Event(pod, corev1.EventTypeWarning, "SELinuxNotSupported", "SELinux is off on node %s: the seLinuxOptions of this pod are without effect", e.cfg.NodeName)
	}
}
