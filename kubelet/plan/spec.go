package plan

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/observe"
)

// IsSidecar tells whether an init container is a restartable one (KEP-753).
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// KindOf tells what the named container is in its pod; a name that the spec does not know counts as App.
func KindOf(pod *corev1.Pod, name string) Kind {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == name {
			if IsSidecar(c) {
				return Sidecar
			}
			return Init
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return Ephemeral
		}
	}
	return App
}

// Find returns the named container of any kind, or nil. An ephemeral one comes as the container that it is made of.
func Find(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			return (*corev1.Container)(&e.EphemeralContainerCommon)
		}
	}
	return nil
}

// PreviousStatus returns what the pod's status says of the named container, or nil.
func PreviousStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// Hash fingerprints those parts of a container whose change means a restart: its name and image.
func Hash(c *corev1.Container) string {
	h := fnv.New32a()
	b, _ := json.Marshal([]string{c.Name, c.Image})
	h.Write(b)
	return fmt.Sprintf("%x", h.Sum32())
}

// ShouldRestart applies the restart policy to a container that exited: its own rules first (KEP-5307), then its
// own policy, then the pod's.
func ShouldRestart(pod *corev1.Pod, c *corev1.Container, last observe.Container) bool {
	switch ruleFor(c, last.ExitCode) {
	case corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers:
		return true
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return last.ExitCode != 0
	}
	return true
}

// ruleFor is the action of the first of the container's own rules that an exit code meets, "" if none does.
func ruleFor(c *corev1.Container, code int32) corev1.ContainerRestartRuleAction {
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, code)
		if in == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return r.Action
		}
	}
	return ""
}

// CanRestartAll tells whether an end of one of the pod's containers can make all of them begin anew (KEP-5532).
func CanRestartAll(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for _, r := range list[i].RestartPolicyRules {
				if r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// Round counts how often all containers of the pod were told to begin anew; coming tells that none has done so yet this time.
// Every container carries the round that it was made in: neither a restart of the daemon in the middle nor a clock that jumps
// changes anything.
func Round(pod *corev1.Pod, seen observe.Pod) (round uint32, coming bool) {
	made := uint32(0)
	for _, c := range seen.Containers {
		if KindOf(pod, c.Name) == Ephemeral {
			continue
		}
		made, round = max(made, c.Round), max(round, c.Round)
		if AsksAll(pod, c) {
			round = max(round, c.Round+1)
		}
	}
	return round, round > made
}

// AsksAll tells whether a container ended in such a way that all are to begin anew.
func AsksAll(pod *corev1.Pod, c observe.Container) bool {
	spec := Find(pod, c.Name)
	return spec != nil && c.State == observe.Exited && ruleFor(spec, c.ExitCode) == corev1.ContainerRestartRuleActionRestartAllContainers
}
