// Package podstore remembers the sandboxes and containers that the CRI server
// answers for: what was asked, not what runs. What runs is the runtime's to know.
//
// Each object is one file, written whole to a temporary name and renamed, in a
// directory that lives on tmpfs: a record outlives the daemon, not the machine,
// so no fsync is needed.
//
// Crash order. An object passes through the states below; a record is on disk
// before the effect it announces.
//
//	(none) --Reserve--> Creating --Commit--> Created --Delete--> (none)
//	                       |                              ^
//	                       +---------- Delete ------------+
//
// A record found Creating at start belongs to a daemon that died half-way: its
// effects are taken back and the record is deleted. So does one that a failed
// creation could not take back (Abandon). Nobody else sees a Creating
// object: Get and List skip it.
//
// A name (the identity in the request: namespace, name, uid and attempt of a
// pod; name and attempt of a container in its pod) leads to at most one object.
// A second Reserve of a name that is being created waits for the first to end
// and then gets its result, or the name if it failed.
//
// Values handed out are shared and immutable; Update replaces one by another.
// Lock order: Table.mu is a leaf; no file is written under it.
package podstore
