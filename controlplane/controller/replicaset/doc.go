// Package replicaset holds a number of pods for ReplicaSets and ReplicationControllers.
//
// plan.go is pure: the wanted number and the pods that are there in, what to create, delete, adopt and release out.
// The shell serves both kinds by one engine: a set is reduced to what the plan needs.
//
// Expectations: after creating or deleting pods a set is not planned again until the informer has shown them all
// (or a minute has passed), so that a slow watch never makes a set overshoot.
package replicaset
