// Package eviction decides which pod must go when the node runs short of memory, disk, inodes or process numbers. It
// is pure: Decide takes what is left and what each pod uses and returns what is short and whom to evict first.
//
// Order (docs: Node-pressure Eviction): those that use more than they asked for, then the less important by
// priority, then those furthest above their request. Critical pods and static ones are never chosen.
package eviction
