// Package observe answers one question: what does the runtime hold of this pod right now?
//
// The types (Pod, Sandbox, Container) are plain values, the input of kubelet/plan and kubelet/podstatus. Cache
// fills them over CRI and is told by the runtime's event stream when a pod's picture is out of date.
//
// Invariants: an event only marks a pod as stale and wakes it; the truth is always read back with List and Status
// calls, so a lost, doubled or late event costs latency, never correctness. A container's exit is read once and kept,
// because an exited container does not change any more.
//
// Ownership: Run owns the stream goroutine and returns after it has ended. Lock order: Cache.mu is a leaf; it is
// never held across an RPC.
package observe
