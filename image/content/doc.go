// Package content keeps blobs on disk under their digest.
//
// Layout below the directory given to Open:
//
//	blobs/<algorithm>/<hex>   whole blobs; the name is the checksum
//	ingest/<algorithm>-<hex>  what is still arriving; survives a crash, so that a
//	                          download goes on where it stopped
//
// Invariants: a blob appears in blobs/ by one rename, after size and digest were
// checked. Nothing is fsynced here: after a power cut a file may hold garbage, so
// every reader that matters checks the digest while it reads (Read, Verify, and
// the unpacking of layers), and Drop removes what failed.
//
// Ownership: one process per directory; at most one Writer per digest at a time,
// which the caller ensures. No locks.
package content
