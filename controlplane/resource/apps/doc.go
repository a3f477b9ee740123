// Package apps describes the group apps: Deployment, ReplicaSet, StatefulSet, DaemonSet and ControllerRevision,
// with the scale subresource of the three that have replicas.
//
// A selector never changes after creation, and always matches the labels of the template: a controller whose
// selector misses its own pods would make them without end.
package apps
