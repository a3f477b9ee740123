// Package ledger is the store's record of images and layers: a value with pure
// operations, and the files that hold it.
//
// Two files: images.json is durable: what it lists was synced to disk before it
// was written. images-<boot>.json is newer and written without any sync; it is
// trusted only while the machine has not rebooted (a killed process loses no page
// cache; a power cut does). So a pull is acknowledged at memory speed, a kill -9
// loses nothing, and a power cut loses what was pulled in the seconds before it,
// whole images at a time, never halves.
//
// Invariants: every image's layers are in Layers; a directory name is never used
// again (Next only grows).
//
// No locks: the owner serialises.
package ledger
