// Package resourcek8s describes the group resource.k8s.io: dynamic resource allocation, by which pods claim devices.
// It is named so that it does not read like the package of the table itself.
//
// What a claim asks for never changes; what it was given changes only by being given back first.
package resourcek8s
