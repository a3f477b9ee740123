// Package disruption keeps the status of PodDisruptionBudgets, from which pods/eviction (and so `kubectl drain`) takes
// its permission.
//
// decide is pure: budget, selected pods and the scale of their controllers in; a status out. An eviction enters
// status.disruptedPods itself; here an entry leaves once its pod is going, or is still there after two minutes.
package disruption
