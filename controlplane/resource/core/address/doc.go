// Package address gives out the cluster IPs of Services.
//
// An address is taken by creating the IPAddress object (networking.k8s.io) of its name: the store lets only one
// creation through, so any number of API servers agree without a lock. The record names the Service as its parent.
//
// Crash order: the record is written before the Service and deleted after it. A crash in between leaves a record
// whose Service does not exist; it is taken over by whoever needs the address, once it is older than any request that
// might still be creating its Service.
//
// Randomly chosen addresses come from the upper part of a range first, so that those chosen by hand, usually from the
// lower end, seldom collide (KEP-3070).
package address
