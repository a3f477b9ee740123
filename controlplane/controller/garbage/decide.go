package garbage

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// action is what is to be done about one object.
type action int

const (
	nothing          action = iota
	deleteIt                // no owner is left
	deleteForeground        // its last owners wait for it, and it has dependents of its own
	dropOwners              // some owners are gone, another one keeps it: forget those in decision.drop
	orphanDependents        // it goes, its dependents stay
	finishForeground        // nothing blocks its end any more
	lookAtDependents        // it goes after its dependents
)

func (a action) String() string {
	return [...]string{"nothing", "delete", "delete foreground", "drop owners", "orphan dependents", "finish foreground", "look at dependents"}[a]
}

type decision struct {
	action  action
	drop    []types.UID
	unblock bool // of deleteForeground: its owners must not wait for it, since it waits for one that waits already: a circle
}

// ownerState is what is known of one owner; absent means that the API says so.
type ownerState struct {
	ref     metav1.OwnerReference
	absent  bool
	waiting bool // being deleted in the foreground
}

// decide is the whole of garbage collection for one object.
func decide(it item, dependents []item, owners []ownerState) decision {
	if it.deleting {
		return decideDeleting(it, dependents)
	}
	if len(owners) == 0 {
		return decision{action: nothing}
	}
	var drop []types.UID
	solid, blocking := 0, false
	for _, o := range owners {
		switch {
		case o.absent:
			drop = append(drop, o.ref.UID)
		case o.waiting:
			blocking = true
			drop = append(drop, o.ref.UID)
		default:
			solid++
		}
	}
	switch {
	case solid > 0 && len(drop) > 0:
		return decision{action: dropOwners, drop: drop}
	case solid > 0:
		return decision{action: nothing}
	case blocking && len(dependents) > 0:
		return decision{action: deleteForeground, unblock: slices.ContainsFunc(dependents, func(d item) bool { return d.deleting && d.foreground })}
	}
	return decision{action: deleteIt}
}

func decideDeleting(it item, dependents []item) decision {
	switch {
	case it.orphan:
		return decision{action: orphanDependents}
	case !it.foreground:
		return decision{action: nothing}
	}
	for _, d := range dependents {
		for _, o := range d.owners {
			if o.UID == it.uid && o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion {
				return decision{action: lookAtDependents}
			}
		}
	}
	return decision{action: finishForeground}
}
