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
// Compaction runs every five minutes by one member's compactor (a transaction picks who); bbolt reuses what it frees.
package store
