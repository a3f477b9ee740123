// Package quota measures what objects use of a namespace's quota: counts of objects, compute resources of pods,
// storage of claims, ports of services. Admission asks it for one object, the quota controller for a namespace.
//
// Pure but for the clock, by which a pod stuck in its deletion stops to count.
package quota
