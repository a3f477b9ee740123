// Package model says what a Service means on one node: which addresses and ports it answers on and which endpoints take a
// connection that comes one way or the other. Pure: API objects in, values out; no clock, no I/O.
//
// The rules are those of the Service API: ready endpoints first, those that are ending but still serve when no other is left
// (KEP-1669), only the node's own for a Local traffic policy (KEP-2086), those of the node or zone first where the slices'
// hints say so (KEP-2433, KEP-4444).
package model
