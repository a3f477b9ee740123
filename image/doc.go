// Package image turns a reference into verified bytes and those into a
// mountable root filesystem.
//
// Store is the façade. Below it, leaves that do not know each other:
//
//	reference  what the user wrote -> one normal form             (pure)
//	manifest   manifests, indexes, configs -> checked values      (pure)
//	policy     policy.json: which images may be used, by whose signature
//	registry   the OCI distribution client: hosts.toml, auth, resume
//	content    content-addressed blobs on disk
//	unpack     one compressed layer -> files below one directory
//	snapshot   layer directories, overlay mounts
//	gc         what may be deleted                                (pure)
//	imagetest  images and a faulty registry for tests
//
// Invariants:
//   - Every byte that is used was checked against its digest on the way in;
//     nothing in an image picks a host path.
//   - A layer is visible only after it was unpacked whole and its DiffID matched.
//   - State that a power cut may lose is never acknowledged as durable: the
//     ledger (images.json) lists only what was synced. See ledger.go.
//   - What a container mounts stays on disk until it is unmounted, whatever
//     happens to the image's names.
//
// Ownership: one process owns Root (flock on Root/lock); Store.Close waits for
// every goroutine that the store started.
//
// Lock order: Store.mu is the only lock held while state changes; it is never
// held across I/O but the ledger's own small write. flight groups have a lock of
// their own, never held together with Store.mu.
package image
