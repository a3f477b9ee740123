// Package ipam gives out the addresses of a node's pod range.
//
// One file per address in a folder is the record; it is written before the address is used and removed after the last use. The
// content is the owner's own (a JSON value); the folder may lie on tmpfs, for a reservation need not outlive the boot.
//
// Invariants:
//   - An address is given to one owner at a time; the network address, the gateway (the first) and the broadcast
//     address are never given.
//   - Addresses rotate: a released one comes again only after all others, and within the quarantine only when there is no
//     other, the one that rested longest first and none that rested less than a second. The place in the rotation is kept
//     in a file of its own, so that a restart does not begin with the addresses used last.
//   - An unreadable record blocks its address until somebody releases it: never two pods with one address.
//
// Lock order: one mutex, which is not held over writes: an address is taken in memory first, then on disk.
package ipam
