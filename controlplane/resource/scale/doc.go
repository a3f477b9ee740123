// Package scale serves the scale subresource of any kind that has replicas: a small view of an object,
// autoscaling/v1 Scale, through which `kubectl scale` and autoscalers read and set the replica count alone.
//
// A write becomes an update of the object itself in its own store, so all rules of the kind still hold,
// and field ownership of spec.replicas is carried over between the two.
package scale
