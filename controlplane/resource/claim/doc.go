// Package claim is what PersistentVolumeClaims and the kinds that carry claim templates (pods with generic
// ephemeral volumes, StatefulSets) share: defaults and validation of corev1.PersistentVolumeClaimSpec.
// Pure functions; defaults are idempotent.
package claim
