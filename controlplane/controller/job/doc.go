// Package job runs pods until enough of them have succeeded, or too many have failed.
//
// Every pod has the finalizer batch.kubernetes.io/job-tracking until it has been counted, so that a pod that is deleted
// is still counted, and counted once. The way of a finished pod, each step safe to repeat:
//
//  1. its UID enters status.uncountedTerminatedPods (an Indexed success enters status.completedIndexes),
//  2. once that is stored, the pod loses the finalizer,
//  3. once the pod is seen without it, the UID leaves the list and the counter goes up, in one write.
//
// A write from a cache that lags is refused as a conflict, so no step is done twice.
//
// A Job with manualSelector takes over what its selector picks and nobody controls, finished pods too: the finalizer comes with the
// adoption, in one write, and goes with a pod that the selector no longer picks. A pod with the finalizer that no Job is to count
// loses it.
//
// With backoffLimitPerIndex the failures of an index are written on its pods (batch.kubernetes.io/job-index-failure-count), and the
// last failed pod of an index is kept until the pod that carries on has the figure.
//
// decide (plan.go, count.go, policy.go, indexes.go) is pure: Job, pods and the time in; a plan out. The shell writes the
// status first and acts on pods afterwards. A Job that ends first says why (SuccessCriteriaMet or FailureTarget), ends
// its pods, and is Complete or Failed when none is left.
package job
