// Package statefulset keeps pods with an identity: name, ordinal, DNS name and claims stay when a pod is replaced.
//
// plan.go is pure: the set, its revisions and its pods in, the next step out. In order (podManagementPolicy:
// OrderedReady) a step concerns one pod and waits until every lower ordinal is running and available; Parallel does not
// wait. Scaling down goes from the highest ordinal. A rolling update replaces from the highest ordinal to the partition.
//
// Invariant: a pod is created only when no pod of its name exists: two with one identity never run.
package statefulset
