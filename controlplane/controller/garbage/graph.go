package garbage

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// item is one object as the graph knows it. Values are copied out; the graph's own are guarded by its lock.
type item struct {
	uid        types.UID
	resource   schema.GroupVersionResource
	kind       string
	namespace  string
	name       string
	owners     []metav1.OwnerReference
	deleting   bool
	foreground bool // has the foregroundDeletion finalizer
	orphan     bool // has the orphan finalizer
}

// graph is who owns whom.
type graph struct {
	mu         sync.Mutex
	items      map[types.UID]*item
	dependents map[types.UID]map[types.UID]bool // owner -> those that refer to it
}

func newGraph() *graph {
	return &graph{items: map[types.UID]*item{}, dependents: map[types.UID]map[types.UID]bool{}}
}

// newItem reduces an object's metadata.
func newItem(resource schema.GroupVersionResource, kind string, m metav1.Object) *item {
	return &item{uid: m.GetUID(), resource: resource, kind: kind, namespace: m.GetNamespace(), name: m.GetName(),
		owners: slices.Clone(m.GetOwnerReferences()), deleting: m.GetDeletionTimestamp() != nil,
		foreground: slices.Contains(m.GetFinalizers(), metav1.FinalizerDeleteDependents),
		orphan:     slices.Contains(m.GetFinalizers(), metav1.FinalizerOrphanDependents)}
}

// set records an object and returns the UIDs worth a look: itself if it has owners or waits for dependents, and,
// when it began to wait, its dependents.
func (g *graph) set(it *item) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.items[it.uid]
	if old != nil {
		for _, o := range old.owners {
			g.unlink(o.UID, it.uid)
		}
	}
	g.items[it.uid] = it
	for _, o := range it.owners {
		if g.dependents[o.UID] == nil {
			g.dependents[o.UID] = map[types.UID]bool{}
		}
		g.dependents[o.UID][it.uid] = true
	}
	var look []types.UID
	if len(it.owners) > 0 || it.waits() {
		look = append(look, it.uid)
	}
	if it.waits() && (old == nil || !old.waits()) {
		look = append(look, g.dependentsOf(it.uid)...)
	}
	refs := it.owners
	if old != nil {
		refs = append(slices.Clone(refs), old.owners...) // also one that it has just let go of
	}
	for _, o := range refs { // an owner that waits for this one
		if owner := g.items[o.UID]; owner != nil && owner.waits() {
			look = append(look, o.UID)
		}
	}
	return look
}

// remove forgets an object and returns those that its end concerns: dependents, and owners that waited for it.
func (g *graph) remove(uid types.UID) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	look := g.dependentsOf(uid)
	if it := g.items[uid]; it != nil {
		for _, o := range it.owners {
			g.unlink(o.UID, uid)
			look = append(look, o.UID)
		}
	}
	delete(g.items, uid)
	return look
}

// get returns a copy of an object and of its dependents.
func (g *graph) get(uid types.UID) (item, []item, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	it := g.items[uid]
	if it == nil {
		return item{}, nil, false
	}
	var deps []item
	for _, d := range g.dependentsOf(uid) {
		if dep := g.items[d]; dep != nil {
			deps = append(deps, *dep)
		}
	}
	return *it, deps, true
}

// known returns a copy of an object.
func (g *graph) known(uid types.UID) (item, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if it := g.items[uid]; it != nil {
		return *it, true
	}
	return item{}, false
}

// resources lists the UIDs of one resource, for when it goes away.
func (g *graph) ofResource(r schema.GroupVersionResource) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []types.UID
	for uid, it := range g.items {
		if it.resource == r {
			out = append(out, uid)
		}
	}
	return out
}

// dependentsOf needs mu held.
func (g *graph) dependentsOf(uid types.UID) []types.UID {
	out := make([]types.UID, 0, len(g.dependents[uid]))
	for d := range g.dependents[uid] {
		out = append(out, d)
	}
	return out
}

// unlink needs mu held.
func (g *graph) unlink(owner, dependent types.UID) {
	delete(g.dependents[owner], dependent)
	if len(g.dependents[owner]) == 0 {
		delete(g.dependents, owner)
	}
}

// waits: the object is being deleted and stays until its dependents are gone (foreground) or freed (orphan).
func (i *item) waits() bool { return i.deleting && (i.foreground || i.orphan) }
