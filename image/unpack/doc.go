// Package unpack lays one compressed layer out as files below one directory, in
// the form overlayfs reads (a whiteout is a character device 0:0, an opaque
// directory has the xattr trusted.overlay.opaque).
//
// Invariants:
//   - Nothing outside the directory is read, written or linked, whatever names,
//     links and races a layer brings: parents are opened with openat2
//     (RESOLVE_IN_ROOT), last components are never followed.
//   - Memory is bounded; time and disk are bounded by the Budget.
//   - A layer cannot speak to overlayfs: its trusted.overlay.* and
//     user.overlay.* xattrs are dropped, and so are 0:0 devices of its own.
//   - The Report's DiffID is of every byte of the uncompressed stream.
//
// The directory must be empty and nobody else's. On error it is left as it is:
// the caller removes it. Layers are independent until Settle joins one with what
// lies below it, so an image's layers unpack side by side.
//
// Ownership: Layer starts one goroutine (decompress and hash) and waits for it.
//
// Sources: OCI image-spec "layer.md"; kernel Documentation/filesystems/overlayfs.rst.
package unpack
