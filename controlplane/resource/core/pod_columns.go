package core

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/column"
)

// nodeUnreachable is the status reason that the node controller gives to pods it can no longer ask about.
const nodeUnreachable = "NodeLost"

func podColumns() []resource.Column {
	wide := func(name, doc string, value func(*corev1.Pod) string) resource.Column {
		return resource.Col(name, "string", doc, 1, func(p *corev1.Pod) any { return column.Or(value(p), "<none>") })
	}
	return []resource.Column{
		resource.Col("Ready", "string", "The aggregate readiness state of this pod for accepting traffic.", 0,
			func(p *corev1.Pod) any { s := summarize(p); return fmt.Sprintf("%d/%d", s.ready, s.total) }),
		resource.Col("Status", "string", "The aggregate status of the containers in this pod.", 0,
			func(p *corev1.Pod) any { return summarize(p).reason }),
		resource.Col("Restarts", "string", "The number of times the containers in this pod have been restarted and when the "+
			"last container in this pod has restarted.", 0, func(p *corev1.Pod) any { return summarize(p).restartText() }),
		wide("IP", column.Doc(corev1.PodStatus{}, "podIP"), func(p *corev1.Pod) string {
			if len(p.Status.PodIPs) == 0 {
				return ""
			}
			return p.Status.PodIPs[0].IP
		}),
		wide("Node", column.Doc(corev1.PodSpec{}, "nodeName"), func(p *corev1.Pod) string { return p.Spec.NodeName }),
		wide("Nominated Node", column.Doc(corev1.PodStatus{}, "nominatedNodeName"),
			func(p *corev1.Pod) string { return p.Status.NominatedNodeName }),
		wide("Readiness Gates", column.Doc(corev1.PodSpec{}, "readinessGates"), readinessGates),
	}
}

func podEnded(obj runtime.Object) (reason, message string) {
	switch phase := obj.(*corev1.Pod).Status.Phase; phase {
	case corev1.PodSucceeded:
		return string(phase), "The pod has completed successfully."
	case corev1.PodFailed:
		return string(phase), "The pod failed."
	}
	return "", ""
}

// podSummary is what one line of `kubectl get pods` says.
type podSummary struct {
	ready, total int
	reason       string
	restarts     int
	lastRestart  time.Time
}

func (s podSummary) restartText() string {
	if s.restarts == 0 || s.lastRestart.IsZero() {
		return strconv.Itoa(s.restarts)
	}
	return fmt.Sprintf("%d (%s ago)", s.restarts, cell.Since(metav1.Time{Time: s.lastRestart}))
}

// count adds a container's restarts.
func (s *podSummary) count(c *corev1.ContainerStatus) {
	s.restarts += int(c.RestartCount)
	if t := c.LastTerminationState.Terminated; t != nil && s.lastRestart.Before(t.FinishedAt.Time) {
		s.lastRestart = t.FinishedAt.Time
	}
}

func summarize(p *corev1.Pod) podSummary {
	s := podSummary{total: len(p.Spec.Containers), reason: column.Or(p.Status.Reason, string(p.Status.Phase))}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			s.reason = corev1.PodReasonSchedulingGated
		}
	}
	sidecars := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
			s.total++
		}
	}
	initializing, afterInit := s.addInit(p, sidecars)
	if !initializing || hasCondition(p, corev1.PodInitialized) {
		// Once initialised, only sidecars and containers count.
		s.restarts, s.lastRestart = afterInit.restarts, afterInit.lastRestart
		s.addContainers(p)
	}
	if p.DeletionTimestamp != nil {
		switch {
		case p.Status.Reason == nodeUnreachable:
			s.reason = "Unknown"
		case p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded:
			s.reason = "Terminating"
		}
	}
	return s
}

// addInit walks the init containers up to the first that is not done. Sidecars is the restart count of those alone.
func (s *podSummary) addInit(p *corev1.Pod, isSidecar map[string]bool) (initializing bool, sidecars podSummary) {
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		s.count(c)
		if isSidecar[c.Name] {
			sidecars.count(c)
		}
		term, wait := c.State.Terminated, c.State.Waiting
		switch {
		case term != nil && term.ExitCode == 0:
			continue
		case isSidecar[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case term != nil:
			s.reason = "Init:" + terminationReason(term)
		case wait != nil && wait.Reason != "" && wait.Reason != "PodInitializing":
			s.reason = "Init:" + wait.Reason
		default:
			s.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true, sidecars
	}
	return false, sidecars
}

func (s *podSummary) addContainers(p *corev1.Pod) {
	running, failure := false, ""
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.count(c)
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.reason = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.reason = terminationReason(c.State.Terminated)
			if c.State.Terminated.ExitCode != 0 {
				failure = s.reason
			}
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.reason != "Completed" {
		return
	}
	// Some ended well: the pod as a whole is what the others are.
	switch {
	case running && hasCondition(p, corev1.PodReady):
		s.reason = "Running"
	case failure != "":
		s.reason = failure
	case running:
		s.reason = "NotReady"
	}
}

func terminationReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

func hasCondition(p *corev1.Pod, typ corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == typ && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

func readinessGates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return ""
	}
	open := 0
	for _, gate := range p.Spec.ReadinessGates {
		if hasCondition(p, gate.ConditionType) {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}
