// Package csi plays, for CSI drivers, the parts that upstream leaves to the controller manager (attach.go: which volumes are attached where) and
// to the sidecars beside a driver (provision.go, attacher.go, grow.go, capacity.go).
//
// The sidecars' parts are played for drivers whose socket on this server's node serves the controller service and whose CSIDriver object does
// not say, by the annotation keelson.dev/controller: external, that its own sidecars do. Objects and annotations are upstream's, so drivers
// with sidecars work too; names are made from UIDs, so that two that act at once make one volume.
//
// Invariants: a driver is asked before the object says that it is done, and every question may be repeated after a crash, as the
// specification demands. A finalizer holds an object until the driver has undone what the object stands for. Nothing is detached that its
// node reports in use, unless the node is out of service or has not answered for six minutes, and nothing is deleted that is attached.
package csi
