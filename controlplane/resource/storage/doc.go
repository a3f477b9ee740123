// Package storage describes the group storage.k8s.io: StorageClass, VolumeAttributesClass, VolumeAttachment and
// the three kinds by which CSI drivers tell what they are and can do.
package storage
