// Package snapshot saves a cluster to one file and brings it back, also on a machine that has never seen it.
//
// A snapshot is a tar archive (0600): `db` (the database in the form of etcd's own snapshots, so that its tools can read it),
// `files/...` (the PKI and the keys of Secrets: who has the file has the cluster), and last `manifest.json` with a SHA-256 of
// each. A file that is cut off has no manifest.
//
// Invariants:
//   - A snapshot has its name only when it is whole, on disk and verified: the database is checked page by page, not only hashed.
//   - Restore touches nothing before the whole file has been verified and the new tree is built beside the old one. One rename
//     (an exchange, if there is an old tree) puts it in place; the old tree is kept under another name.
//   - A restored cluster has a new store identity, so that members of the old one cannot join it, and its revisions begin
//     Bump after the snapshot's: who watches or remembers a revision is told that it is gone, and never sees one twice.
package snapshot
