package kubelet

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
)

// tell records, once for each, that a container has begun to back off.
func (k *Kubelet) tell(pod *corev1.Pod, rec *podRecord, seen observe.Pod, waiting map[string]plan.Waiting) {
	for name, w := range waiting {
		if w.Reason != "CrashLoopBackOff" && w.Reason != "ImagePullBackOff" {
			continue
		}
		attempt, failures := uint32(0), 0
		if c := seen.Newest(name); c != nil {
			attempt = c.Attempt
		}
		told := false
		rec.with(func() {
			failures = rec.mem.Images[name].Failures
			mark := fmt.Sprintf("%s/%d/%d", w.Reason, attempt, failures)
			told = rec.told[name] == mark
			rec.told[name] = mark
		})
		c := plan.Find(pod, name)
		if told || c == nil {
			continue
		}
		if w.Reason == "ImagePullBackOff" {
			k.parts.puller.BackingOff(pod, c)
			continue
		}
		k.parts.exec.ContainerEvent(pod, name, corev1.EventTypeWarning, "BackOff",
			"Back-off restarting failed container %s in pod %s_%s(%s)", name, pod.Name, pod.Namespace, pod.UID)
	}
}

// lastWords reads the termination message of a container that died. It is observe's hook.
func (k *Kubelet) lastWords(uid types.UID, c observe.Container) string {
	policy := corev1.TerminationMessageReadFile
	if _, pod := k.known(uid); pod != nil {
		if spec := plan.Find(pod, c.Name); spec != nil && spec.TerminationMessagePolicy != "" {
			policy = spec.TerminationMessagePolicy
		}
	}
	return k.parts.exec.TerminationMessage(uid, c, policy)
}
