// Package plan decides what happens next to one pod. It is pure: Plan takes the pod as wanted, the pod as observed,
// what the worker remembers and the time as values, and returns the actions to take now, in order, and when to ask
// again. No clock, no I/O, no logger; testdata holds scenarios that read like a story.
//
// The way of a pod that is to run:
//
//	volumes -> sandbox -> init containers, one by one -> sidecars as they come among them -> containers
//	   (pulls go on beside all of this; a container starts when its image is there)
//
// and of one that ends:
//
//	containers stop together -> sidecars stop in reverse order, one by one -> sandbox stops -> finished
//
// A container's end may ask that all begin anew: whatever lives of that round stops, and the way begins again at the init
// containers. Every container carries its round.
//
// Invariants: an action is asked for again as long as its effect is not observed and it is not remembered as under
// way or as failed and not yet due; so a plan may be dropped at any point. No container starts before the volumes
// are mounted, its sandbox is ready and all that must come before it has come.
package plan
