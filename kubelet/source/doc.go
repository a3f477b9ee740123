// Package source is where a node's pods come from: the API (pods bound to this node) and a folder of manifests
// (static pods). Both feed one Sink with whole pods, keyed by UID; nothing here knows what becomes of them.
//
// For each static pod a mirror pod is kept in the API, so that users see it; deleting the mirror does not stop the
// static pod, deleting the file does. Invariants: a manifest that cannot be read or understood is reported and leaves
// everything else, its own last good version included, as it was; it is read again when it changes.
//
// Ownership: each Run owns its goroutines and returns after them. Sink methods are called from one goroutine per
// source.
package source
