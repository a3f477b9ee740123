// Package csi is the node's side of the Container Storage Interface (github.com/container-storage-interface/spec, version 1): which drivers
// are registered, what the API's CSINode and Node say of them, and volumes that they mount for pods.
//
//	<root>/pods/<uid>/volumes/kubernetes.io~csi/<volume>/vol_data.json       the record, written before the driver is asked for anything
//	<root>/pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount               where a filesystem is published
//	<root>/plugins/kubernetes.io/csi/<driver>/<sha256 of handle>/globalmount where a filesystem is staged, beside its vol_data.json
//	<root>/plugins/kubernetes.io/csi/volumeDevices/publish/<volume>/<uid>    where a device is published
//	<root>/plugins/kubernetes.io/csi/volumeDevices/staging/<volume>          where a device is staged
//
// The paths are upstream's: drivers and backup tools know them.
//
// A pod's volume goes: attached (the VolumeAttachment says so) -> staged (once per node) -> published (once per pod) -> given to the pod's
// group -> marked ready in the record. Every step may be repeated after a crash, which the specification demands of drivers; what the mark
// spares is only the repetition. Taking down goes the other way, and the record goes last, so that a crash leaves what leads here again.
//
// Invariants:
//   - Calls about one volume of one driver run one after the other, across pods. No other lock is held over a call: a driver that hangs or
//     is dead holds up the pods that use it and nobody else. Each call has a limit.
//     Only the question what a volume holds waits for no turn: it changes nothing, and is asked once at a time.
//   - Nothing is taken down by the node behind a driver's back: without the driver, a pod that uses it stays until the driver is back.
//   - Secrets and tokens go from the API to the driver, and to no disk.
//
// Lock order: a volume's turn, then mu; mu is not held over I/O.
package csi
