// Package loadbalancer gives Services of type LoadBalancer addresses from ranges that the administrator names, as a cloud's
// load balancer would, and takes them back. Whoever routes the addresses to a node is elsewhere; here they are only assigned.
//
// Invariants:
//   - An address belongs to one Service at a time; a Service keeps its address for as long as it wants one.
//   - Services of another load balancer class are never touched, nor are addresses outside the ranges.
//   - What is assigned is in the Services' status alone: there is no other state to lose. Until the informer shows a write, the
//     controller's one worker remembers it.
package loadbalancer
