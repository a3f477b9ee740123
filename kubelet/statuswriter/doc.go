// Package statuswriter brings pod statuses to the API: the only place from which the kubelet writes them.
//
// Set replaces what a pod's status is to be; writers bring it there by a strategic merge patch of what differs, with
// the UID in it, so that a pod of the same name is never touched. Only the newest wish is written; a failed write is
// tried again until it succeeds or the pod is gone, so a terminal status is never lost. Conditions that others own
// are left as the API has them.
//
// Ownership: Run owns the writer goroutines. Lock order: Writer.mu is a leaf, not held across API calls.
package statuswriter
