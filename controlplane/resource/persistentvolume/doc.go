// Package persistentvolume defaults and validates what a volume of the cluster is: the spec of a PersistentVolume and the same spec
// where a VolumeAttachment carries it inline. Field paths, messages and their order are upstream's.
package persistentvolume
