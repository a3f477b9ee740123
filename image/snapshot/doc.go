// Package snapshot keeps unpacked layers as directories and stacks them with
// overlayfs into root filesystems.
//
// Layout below the directory given to Open:
//
//	layers/<n>               one layer, as package unpack lays it out; 0700 above it
//	layers/draft-<n>         one that is being unpacked; removed by Recover
//	containers/<id>/record   what is mounted, written before the mount
//	containers/<id>/upper    the writable layer; work: overlayfs's own; rootfs: the mount
//	views/<id>/...           the same for read-only image volumes: record, rootfs, sub
//	trash/                   what is being removed, in the background
//
// Invariants: layers/<n> is whole; an upper directory is used for one mount only
// (overlayfs "volatile" forbids a second one after a crash, and we want none); a
// mount that Recover finds without a record, or a record without a mount, is gone
// when Recover returns.
//
// Nothing is fsynced: what is here must not outlive a power cut unless the
// ledger says that it was synced (Sync), and writable layers never do.
//
// Ownership: the janitor goroutine empties trash/; Close stops and waits for it.
// No locks: the caller serialises calls for one id.
package snapshot
