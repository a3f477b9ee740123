// Package volume gives a pod's volumes host paths: it makes, fills, updates and removes them. It has no state that outlives
// it: the folders below <root>/pods/<uid> and the mount table are the record, so any call may be repeated after a crash.
//
//	<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>            a volume
//	<root>/pods/<uid>/volume-subpaths/<volume>/<container>/<index>     a checked subPath, bind mounted
//
// A [Plugin] serves one kind of volume; the built-in ones are thin shells over the pure packages below this one. Further ones
// (csi) are handed in by whoever wires the node. A claim is looked up first, and the [PersistentPlugin] of what it is bound to serves
// it under that volume's name. A disk image's loop device is recorded in the volume's folder before it is attached.
//
// Invariants:
//   - Mount is idempotent and all or error: with a nil error every volume that a container of the pod names is ready.
//   - Unmount removes subpaths before volumes, mounts before folders, and deletes nothing through a mount or a symlink:
//     a container may have put anything into its volumes.
//   - Secret content and tokens are only ever on tmpfs.
//   - Calls of one pod run one after the other.
//
// Ownership: a Manager has no goroutine but those that measure a volume, one each at most, which end with the answer: nobody waits for a filesystem
// that hangs. Lock order: the pod's turn, then single or a plugin's own lock, then mu; mu is not held over I/O.
package volume
