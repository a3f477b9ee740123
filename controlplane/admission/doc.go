// Package admission decides about each write between authorization and storage: it fills in what the cluster decides
// (service account, priority, tolerations, default classes) and refuses what policy forbids (quota, limits, pod
// security, what a node may touch).
//
// One file per plugin; the order is in admission.go and is upstream's. Plugins of our own are functions of the request and
// of a few objects that they read through a reader: from a shared informer once that has synced, from the API before.
// So nothing waits at start, and no informer runs for a plugin that no request has needed yet.
//
// Invariants: an object from a reader is shared and never changed. A plugin that cannot decide refuses. Admit may
// change the object of the request, Validate may not. Mirror pods are left as the kubelet wrote them.
//
// Goroutines belong to the informer factory that the caller gives and ends, and to the library's plugins, which end
// with Deps.Stop. Locks: readers have a sync.Once each; none is held across a call.
package admission
