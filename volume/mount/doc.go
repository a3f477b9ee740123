// Package mount mounts, unmounts and deletes below the kubelet's folder, never following a symlink and never deleting through a mount.
//
// Containers can write into volumes while the node works on them, so nothing here trusts a path twice: what is checked is a file
// descriptor, and what is acted on is that descriptor. A pod's own folders above its volumes are the node's alone and may be named by path.
package mount
