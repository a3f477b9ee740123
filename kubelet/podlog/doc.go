// Package podlog reads container logs in CRI's format ("time stream tag content") for kubectl logs: the end of them,
// since a time, with times, one stream, as they grow, across rotations.
//
// Files are opened from the log root by descriptor without following any link, and only regular ones (HOSTILE PS9):
// a pod with a writable /var/log must not read the node's files through its node. Growth and rotation are seen by
// inotify. A rotated file is read to its end before the next one is begun, so every line comes exactly once.
//
// Ownership: Copy runs in its caller's goroutine and has none of its own.
package podlog
