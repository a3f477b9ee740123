// Package persistentvolume binds claims to volumes one to one, takes back what was released, and asks for volumes where a
// class makes them.
//
// A binding is two references: the volume's spec.claimRef and the claim's spec.volumeName. The volume's is written first
// and decides, since only one claim can be in it: a crash or a lost race between the two leaves a volume that waits for
// its claim, which the next look completes. The annotations bind-completed and bound-by-controller are upstream's.
//
// Ownership: claims and volumes share one worker, so that no two choices are made from the same stale store; what the
// store may not show yet is guarded by resource versions.
package persistentvolume
