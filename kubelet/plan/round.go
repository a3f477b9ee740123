package plan

import (
	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/observe"
)

// RestartingAll is why a container that had to end with all others waits for its turn to begin anew.
const RestartingAll = "RestartingAllContainers"

// stopRound stops what still lives of an earlier round: all containers begin anew, as if the pod had just come, but in its
// sandbox and with its volumes (KEP-5532). They get no time of their own, since nobody waits for what they could save.
func (p *planner) stopRound() bool {
	old := false
	for _, c := range p.Observed.Live() {
		if c.Round < p.round && KindOf(p.Pod, c.Name) != Ephemeral {
			old = true
			p.stop(c, minGrace, "Stopping container "+c.Name)
		}
	}
	if old {
		return true
	}
	for _, list := range [][]corev1.Container{p.Pod.Spec.InitContainers, p.Pod.Spec.Containers} {
		for i := range list {
			if last := p.Observed.Newest(list[i].Name); last != nil && last.Round < p.round {
				p.out.Waiting[list[i].Name] = Waiting{RestartingAll, "The container is removed because RestartAllContainers in place"}
			}
		}
	}
	return false
}

// anew starts a container of an earlier round. Only the one that asked for it backs off: the others did nothing wrong.
func (p *planner) anew(name string, kind Kind, last observe.Container) *Action {
	switch {
	case AsksAll(p.Pod, last):
		return p.restart(name, kind, last)
	case last.State == observe.Created:
		return &Action{Op: Start, Container: name, Kind: kind, ID: last.ID, Attempt: last.Attempt}
	}
	return &Action{Op: Start, Container: name, Kind: kind, Attempt: last.Attempt + 1}
}
