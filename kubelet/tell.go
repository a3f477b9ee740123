package kubelet

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"

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

func (k *Kubelet) recorder() record.EventRecorder {
	return k.parts.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: k.cfg.Node.Name})
}

// cgroupsBack tells, as an Event of the Node, that somebody removed cgroups of all pods. It is the tree's hook.
func (k *Kubelet) cgroupsBack(dirs []string, err error) {
	k.log.Warn("somebody removed cgroups of the pods", "dirs", dirs, "err", err)
	if err != nil {
		return // there will be another call
	}
	ref := &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: k.cfg.Node.Name}
	if node, err := k.parts.cluster.Node(); err == nil {
		ref.UID = node.UID
	}
	k.recorder().Eventf(ref, corev1.EventTypeWarning, "CgroupsRepaired", "Somebody removed cgroups of this node's pods; keelson has made them again: %s", strings.Join(dirs, ", "))
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
