// Package scheduler chooses a node for every pod that has none, and binds it through the API.
//
// The decision is pure: Decide(cluster, pod) filters the nodes on which the pod can run, scores those by what stays
// free, and returns either a node or, for each refusing reason, on how many nodes it applies (the course's two steps).
// Preempt(cluster, pod) says which pods of lower priority would have to go. Neither reads a clock, an API or a log.
//
// The shell around it is one goroutine (Scheduler.Run) that owns the cluster picture and the queue; informers and
// binding goroutines talk to it through one channel, so nothing here has a lock. A bound pod is assumed in the picture
// at once and forgotten if the API refuses the binding. It is a client like any other: no side door to the store.
//
// Queue: a pod is ready (waiting its turn by priority, then age), backing off (after a refusal, 1 s doubling to 10 s),
// or parked (unschedulable until something changes that could help). Losing an event costs latency only: every
// 5 minutes parked pods get another look.
package scheduler
