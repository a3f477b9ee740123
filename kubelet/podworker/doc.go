// Package podworker gives every pod, by UID, one goroutine that drives it through its life:
//
//	           Set                 ended | deleted | dropped | finished
//	(none) ----------> Waiting ---> Syncing --------------------------> Terminating ---> Terminated ---> (none)
//	                     |  name is free                  nothing runs any more  ^          cleaned and dropped
//	                     +------------------------------------------------------+
//	                        deleted | dropped before it began
//
// What a pod does in a state is the Syncer's affair; it is called again and again with the newest wish until it says
// Done. Wake-ups carry no content and are coalesced: ten of them during one call cause one more call.
//
// Invariants: calls for one UID never overlap. A pod whose namespace/name is still held by another UID waits until
// that one is cleaned (static pods, StatefulSets, forced deletions), so two of a name never run together. Nil-error
// consequences: Terminate's Done permits freeing volumes and cgroups; Clean's Done permits the next pod of the name.
//
// Ownership: Start's context ends all workers; Wait waits for them. Workers.mu guards the tables and every worker's
// wish; it is a leaf and never held across a Syncer call.
package podworker
