// Package volumesource validates the volume sources that pods and PersistentVolumes have in common: the host path and
// the drivers of old that name a server, a disk or a share. Field paths and messages are upstream's.
//
// No node here mounts most of them; their objects are still accepted and refused as upstream does.
package volumesource
