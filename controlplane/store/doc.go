// Package store is the seam between the API server and the database: embedded etcd, reached in process.
//
// Open locks the data directory, starts etcd as a member (alone: a cluster of one) and returns. The member may not have
// a leader yet: Ready says when. RESTOptions hands the API server a storage.Interface per resource; nothing above
// this package names an etcd type, so that the database can be replaced here alone.
//
// Invariants:
//   - One process per data directory: an flock held for the life of the process, with the pid in the file.
//   - An acknowledged write is on disk: fsync is on and is not configurable.
//   - No socket is opened while the member is alone. A member of several listens for its peers only.
//   - Secrets are encrypted with a key of this cluster before they reach etcd, its log or a snapshot.
//   - Layout of keys is upstream's (/registry/...), so that its tools can read a snapshot.
//
// The database is looked after here, so that nobody else has to:
//   - History is compacted every five minutes by the library's compactor (a transaction picks the member that does it).
//   - Space is judged before each write (space.go), by free bytes on the disk and by what is in use, because etcd ends the process
//     when a write fails and stays read-only when its own quota is reached. Short of space, nothing new is made; nearly out of it,
//     only deletions pass, history is given up, free pages are given back, and blocks that were reserved for this are used.
//     It heals by itself. A quota that nobody chose is raised before it is reached, as long as the disk has the room.
//   - What is free in the file is given back to the disk where it is, in pieces of two milliseconds, while reads and writes go on (trim.go):
//     etcd's own defragmentation copies all that is in use and stops everybody meanwhile. With 470 MB in the file and 40 MB in use, on a busy
//     machine, no write took longer than 37 ms (30 ms when nothing was given back); the copy stopped them for a second. It is
//     left to file systems without holes, before the start.
//   - Damage that can be seen at the start is an error that names the way out (damage.go). A torn tail of the log is cut off.
//     A sync that fails later ends the process: nothing may be acknowledged after it.
//   - A disk that is slow holds up writes and nothing else: a member that is alone reads what it has applied (lone.go).
//   - The package snapshot saves and restores.
//
// There is one member. Partitions, elections, a member's old disk, snapshots sent to a follower, changes of membership, rolling upgrades
// and a lost quorum (HOSTILE RA8, RA9, RA11, RA13, RA15, RA16, RA17) need several: they are tested with what lets a second one join.
package store
