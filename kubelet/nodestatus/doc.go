// Package nodestatus is the node as the cluster sees it: its registration, its status (capacity, conditions,
// addresses, what it runs) and its Lease.
//
// The runtime is asked for its condition each LeaseEvery, since CRI has no event for that; the API hears of it only
// when something changed, and every StatusEvery in any case. A node object that was deleted is registered again.
//
// Computation (status.go) is pure over a snapshot of the machine; machine.go reads the snapshot. Ownership: Run owns
// all goroutines. Reporter.mu is a leaf.
package nodestatus
