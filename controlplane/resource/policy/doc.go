// Package policy describes the group policy: PodDisruptionBudget. Eviction, the group's other kind, is a
// subresource of pods and lives with them.
package policy
