// Package podautoscaler gives a workload as many pods as its HorizontalPodAutoscaler's metrics ask for.
//
// Every autoscaler is looked at when it is made or changed and then each 15 s; without autoscalers nothing happens. A look
// is pure: decide takes the autoscaler, its target's scale, the target's pods, one reading a metric and what was recommended
// and done before, and returns a verdict: the number of pods, the status, the events. The shell around it reads and writes.
//
// The rules are upstream's (its documentation, "Horizontal Pod Autoscaling", and KEP-853, KEP-1610, KEP-4951): a metric's
// ratio to its target within the tolerance changes nothing; pods that are not ready or were not measured are assumed to be
// where they damp the change (replicas.go); the largest proposal wins; windows and policies limit the pace (pace.go). What
// was recommended and done is kept in memory: a new server begins with the size that it finds.
package podautoscaler
