// Package podstatus computes the PodStatus that the kubelet reports: phase, conditions, container statuses. It is
// pure: Compute takes the pod with its previous status, the runtime's picture and the reasons of whatever waits, and
// returns a value. Changed tells whether two statuses differ in anything that a reader would notice.
//
// Invariants: a terminal phase never changes back; transition times move only when the condition's status does;
// conditions of others (readiness gates, DisruptionTarget) are carried over untouched. Sources: API
// documentation of PodStatus, KEP-753 (sidecars), KEP-3085 (PodReadyToStartContainers), KEP-580 (readiness gates),
// KEP-5532 (all containers begin anew).
package podstatus
