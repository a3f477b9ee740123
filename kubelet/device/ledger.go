package device

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// unit is one device as its plugin tells of it.
type unit struct {
	healthy bool
	numa    []int64 // nodes that it is near to; empty when the plugin does not say
}

// key names what is given to one container.
type key struct {
	Pod       types.UID
	Container string
	Resource  string
}

// gift is what one container has been given of one resource.
type gift struct {
	IDs []string
	// Answer is the plugin's ContainerAllocateResponse, marshalled.
	Answer []byte
}

// ledger is what there is and who has it. It is a value without I/O; its owner guards it.
type ledger struct {
	units map[string]map[string]unit // resource -> device ID
	gifts map[key]gift
}

func newLedger() ledger {
	return ledger{units: map[string]map[string]unit{}, gifts: map[key]gift{}}
}

// taken are the devices of a resource that somebody has.
func (l *ledger) taken(resource string) map[string]bool {
	out := map[string]bool{}
	for k, g := range l.gifts {
		if k.Resource == resource {
			for _, id := range g.IDs {
				out[id] = true
			}
		}
	}
	return out
}

// free are the healthy devices of a resource that nobody has, sorted.
func (l *ledger) free(resource string) []string {
	taken := l.taken(resource)
	var out []string
	for id, u := range l.units[resource] {
		if u.healthy && !taken[id] {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// shortage is the error of an allocation that cannot be met.
type shortage struct {
	Resource        string
	Want, Available int
}

func (s *shortage) Error() string {
	return fmt.Sprintf("requested number of devices unavailable for %s. Requested: %d, Available: %d", s.Resource, s.Want, s.Available)
}

// must are the devices that an allocation takes in any case: those that the pod has already.
func must(want int, reuse []string) []string { return reuse[:min(want, len(reuse))] }

// pick chooses want devices: those of the pod that can be used again, then those that the plugin prefers as far as they
// are free, then those near the same memory, then any.
func (l *ledger) pick(resource string, want int, reuse, preferred []string) ([]string, error) {
	free := l.free(resource)
	out := slices.Clone(must(want, reuse))
	if len(out)+len(free) < want {
		return nil, &shortage{resource, want, len(out) + len(free)}
	}
	chosen := map[string]bool{}
	for _, id := range out {
		chosen[id] = true
	}
	take := func(ids []string) {
		for _, id := range ids {
			if len(out) < want && !chosen[id] && slices.Contains(free, id) {
				out, chosen[id] = append(out, id), true
			}
		}
	}
	take(preferred)
	take(l.together(resource, want-len(out), free))
	take(free)
	slices.Sort(out)
	return out, nil
}

// together are free devices of one memory node that has enough of them, the one with the fewest to spare.
func (l *ledger) together(resource string, want int, free []string) []string {
	near := map[int64][]string{}
	for _, id := range free {
		for _, n := range l.units[resource][id].numa {
			near[n] = append(near[n], id)
		}
	}
	var best []string
	for _, n := range slices.Sorted(maps.Keys(near)) {
		if ids := near[n]; len(ids) >= want && (best == nil || cmp.Less(len(ids), len(best))) {
			best = ids
		}
	}
	return best
}

// count is how many devices of a resource there are, and how many of them are healthy.
func (l *ledger) count(resource string) (all, healthy int) {
	for _, u := range l.units[resource] {
		all++
		if u.healthy {
			healthy++
		}
	}
	return all, healthy
}

// drop takes back what a pod has and tells whether it had anything.
func (l *ledger) drop(uid types.UID) bool {
	had := len(l.gifts)
	maps.DeleteFunc(l.gifts, func(k key, _ gift) bool { return k.Pod == uid })
	return len(l.gifts) < had
}

// holders are the pods that have any device of a resource.
func (l *ledger) holders(resource string) []types.UID {
	out := map[types.UID]bool{}
	for k := range l.gifts {
		if k.Resource == resource {
			out[k.Pod] = true
		}
	}
	return slices.Collect(maps.Keys(out))
}

// losing marks all devices of a resource unhealthy.
func (l *ledger) losing(resource string) {
	for id, u := range l.units[resource] {
		u.healthy = false
		l.units[resource][id] = u
	}
}
