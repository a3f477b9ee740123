package act

import (
	"os"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/plan"
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

func asksSELinux(o *corev1.SELinuxOptions) bool { return o != nil && *o != corev1.SELinuxOptions{} }

// tellSELinux records, once for a sandbox, that a pod's options are without effect on this host.
func (e *Executor) tellSELinux(pod *corev1.Pod) {
	asked := pod.Spec.SecurityContext != nil && asksSELinux(pod.Spec.SecurityContext.SELinuxOptions) ||
		anyContainer(pod, func(sc *corev1.SecurityContext) bool { return asksSELinux(sc.SELinuxOptions) })
	if asked && !e.cfg.SELinux {
		e.Event(pod, corev1.EventTypeWarning, "SELinuxNotSupported", "SELinux is off on node %s: the seLinuxOptions of this pod are without effect", e.cfg.NodeName)
	}
}

// tellSELinuxOf does so for an ephemeral container, which comes to a sandbox that is there.
func (e *Executor) tellSELinuxOf(t Target, c *corev1.Container) {
	if t.Kind == plan.Ephemeral && !e.cfg.SELinux && c.SecurityContext != nil && asksSELinux(c.SecurityContext.SELinuxOptions) {
		e.ContainerEvent(t.Pod, c.Name, corev1.EventTypeWarning, "SELinuxNotSupported", "SELinux is off on node %s: the seLinuxOptions of this container are without effect", e.cfg.NodeName)
	}
}
