// Package netns makes, enters and drops network namespaces that outlive every process: each is pinned by a bind mount of its
// nsfs file.
//
// A namespace is made, and entered, on a thread that is thrown away afterwards: a goroutine that is still locked to its thread when
// it ends takes the thread with it, so no thread of the daemon is ever left in a foreign namespace, whatever fails.
//
// The package keeps no state: the mount is the record.
package netns
