package garbage

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func owned(uid types.UID, block bool) metav1.OwnerReference {
	return metav1.OwnerReference{UID: uid, BlockOwnerDeletion: &block}
}

func TestDecide(t *testing.T) {
	solid, gone, waiting := ownerState{ref: owned("a", true)}, ownerState{ref: owned("b", true), absent: true}, ownerState{ref: owned("c", true), waiting: true}
	child := []item{{uid: "child", owners: []metav1.OwnerReference{owned("it", true)}}}
	loose := []item{{uid: "child", owners: []metav1.OwnerReference{owned("it", false)}}}
	ring := []item{{uid: "child", owners: []metav1.OwnerReference{owned("it", true)}, deleting: true, foreground: true}}
	for _, c := range []struct {
		name   string
		it     item
		deps   []item
		owners []ownerState
		want   action
		drop   []types.UID
	}{
		{"no owners", item{}, child, nil, nothing, nil},
		{"owner is there", item{}, nil, []ownerState{solid}, nothing, nil},
		{"last owner is gone", item{}, child, []ownerState{gone}, deleteIt, nil},
		{"one of two is gone", item{}, nil, []ownerState{solid, gone}, dropOwners, []types.UID{"b"}},
		{"one of two waits", item{}, nil, []ownerState{solid, waiting}, dropOwners, []types.UID{"c"}},
		{"owner waits, a leaf", item{}, nil, []ownerState{waiting}, deleteIt, nil},
		{"owner waits, not a leaf", item{}, child, []ownerState{waiting}, deleteForeground, nil},
		{"owner waits, and so does a dependent", item{}, ring, []ownerState{waiting}, deleteForeground, nil},
		{"owners gone and waiting", item{}, child, []ownerState{waiting, gone}, deleteForeground, nil},
		{"going in the background", item{deleting: true}, child, nil, nothing, nil},
		{"orphans", item{uid: "it", deleting: true, orphan: true}, child, nil, orphanDependents, nil},
		{"waits for its dependents", item{uid: "it", deleting: true, foreground: true}, child, nil, lookAtDependents, nil},
		{"dependents that do not block", item{uid: "it", deleting: true, foreground: true}, loose, nil, finishForeground, nil},
		{"nothing left to wait for", item{uid: "it", deleting: true, foreground: true}, nil, nil, finishForeground, nil},
	} {
		got := decide(c.it, c.deps, c.owners)
		if got.action != c.want || !slices.Equal(got.drop, c.drop) {
			t.Errorf("%s: %s %v, want %s %v", c.name, got.action, got.drop, c.want, c.drop)
		}
		if circle := len(c.deps) > 0 && c.deps[0].deleting; got.unblock != circle {
			t.Errorf("%s: unblock %t, want %t", c.name, got.unblock, circle)
		}
	}
}

func has(t *testing.T, what string, got []types.UID, want ...types.UID) {
	t.Helper()
	slices.Sort(got)
	got = slices.Compact(got)
	if !slices.Equal(got, want) {
		t.Fatalf("%s: look at %v, want %v", what, got, want)
	}
}

func TestGraph(t *testing.T) {
	g := newGraph()
	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	owner := func(deleting, foreground bool) *item {
		return &item{uid: "owner", deleting: deleting, foreground: foreground}
	}
	dep := func(uid types.UID, owners ...metav1.OwnerReference) *item {
		return &item{uid: uid, resource: pods, owners: owners}
	}
	has(t, "a dependent before its owner", g.set(dep("d1", owned("owner", true))), "d1")
	has(t, "an owner with nothing to wait for", g.set(owner(false, false)))
	has(t, "a second dependent", g.set(dep("d2", owned("owner", true))), "d2")
	if _, deps, ok := g.get("owner"); !ok || len(deps) != 2 {
		t.Fatalf("%v %v", deps, ok)
	}
	has(t, "the owner waits", g.set(owner(true, true)), "d1", "d2", "owner")
	has(t, "it still waits", g.set(owner(true, true)), "owner")
	has(t, "a dependent ends", g.remove("d1"), "owner")
	// Released, it no longer holds the owner up: else the owner would wait for ever.
	has(t, "a dependent is released", g.set(dep("d2")), "owner")
	if it, deps, _ := g.get("owner"); decide(it, deps, nil).action != finishForeground {
		t.Fatalf("the owner still waits for %v", deps)
	}
	has(t, "the owner ends", g.remove("owner"))
	has(t, "an owner ends with dependents", func() []types.UID { g.set(dep("d3", owned("gone", true))); return g.remove("gone") }(), "d3")
	if got := g.ofResource(pods); len(got) != 2 {
		t.Fatalf("%v", got)
	}
	g.remove("d2")
	g.remove("d3")
	if len(g.items) != 0 || len(g.dependents) != 0 {
		t.Fatalf("left over: %v %v", g.items, g.dependents)
	}
}

func TestPolicyHonoursFinalizers(t *testing.T) {
	with := func(f ...string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Finalizers: f}}
	}
	if got := policyOf(with(), deleteIt); got != metav1.DeletePropagationBackground {
		t.Error(got)
	}
	if got := policyOf(with(), deleteForeground); got != metav1.DeletePropagationForeground {
		t.Error(got)
	}
	if got := policyOf(with(metav1.FinalizerOrphanDependents), deleteForeground); got != metav1.DeletePropagationOrphan {
		t.Error(got)
	}
	if got := policyOf(with(metav1.FinalizerDeleteDependents), deleteIt); got != metav1.DeletePropagationForeground {
		t.Error(got)
	}
}
