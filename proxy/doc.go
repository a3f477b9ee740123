// Package proxy makes Services work on a node: whatever Services and EndpointSlices say becomes a ruleset of the packet filter.
//
//	informers -> track (what changed) -> model (what it means here) -> rules (chains) -> netfilter (one transaction)
//
// The proxy is level-triggered: a change names a Service, everything else is read from the informers' stores when it is handled,
// and many changes that come while a transaction runs are the next transaction. A failed one is tried again; meanwhile the rules before it
// stay in force.
//
// Invariants:
//   - The rules of an earlier process stay until the first complete ruleset of this one replaces them.
//   - After a transaction that took an endpoint from a UDP port no connection goes on to it.
//   - A port of the node is answered for health checks exactly while its Service asks for it.
//
// Ownership: Run owns every goroutine and listener and ends them before it returns. Everything but the health answers is touched by Run's own
// goroutine alone; there are no other locks.
package proxy
