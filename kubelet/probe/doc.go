// Package probe asks containers whether they have started, are alive and are ready: by exec, HTTP, TCP and gRPC.
//
// Each probe of each running container instance has one goroutine with a timer of its own; nothing ticks for all.
// Results are kept per container ID and handed out by Results; a change wakes the pod's worker.
//
// Invariants: a result belongs to one instance and dies with it. Liveness and readiness are not asked before the
// startup probe has passed. A probe's answer is bounded in time (its timeout) and size (10 KiB), redirects to another
// host are not followed (HOSTILE PS15).
//
// Ownership: Manager.Set starts and stops goroutines, Manager.Wait waits for all after their contexts ended. Lock
// order: Manager.mu is a leaf.
package probe
