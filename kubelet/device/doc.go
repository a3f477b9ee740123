// Package device gives containers the devices of device plugins (KEP-606): programs on the node that register at a
// socket of the kubelet's, say in a stream which devices of a resource ("example.com/gpu") there are and which of them
// are healthy, and tell for each allocation what a container needs to use them.
//
//	ledger      pure: which devices there are, to whom they are given, what is free, which to take
//	checkpoint  the ledger's gifts on disk: written before a container can start with them
//	plugin      one plugin's connection and stream
//	Manager     registration, allocation at a pod's admission, and what a container gets at its start
//
// Invariants: a device is given to one container at a time (a pod's init containers hand theirs on to those that start
// after them); what is on disk is never less than what a container may hold, so that a kubelet killed at any moment
// gives no device twice. A plugin that goes away leaves its devices unhealthy, and its resource disappears five minutes
// later; pods that have its devices keep them.
//
// Lock order: Manager.mu is held across no call to a plugin and no write to disk. Allocations take turns.
package device
