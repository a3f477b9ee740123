// Package core is the API group "" (core/v1): one row per kind, and what is particular to it.
//
// Defaults, validation, strategies and printed columns are upstream's, with its field paths and messages; they are
// functions of their arguments. What pods share with pod templates is in podspec, what claims share in claim.
//
// Subresources beyond status come from Kind.Install. They are views of the kind's own store with another update
// strategy (see view.go), or small REST types of their own (binding, eviction, scale). Install may return an entry
// with the empty name: it takes the place of the kind's own storage (namespaces, whose deletion is a state change).
//
// Services own two things that no two Services may share: cluster IPs and node ports. Each is claimed by creating a
// record object under the value's own name (an IPAddress; a lease-like record for a port), so that the store's
// "already exists" is the only lock and any number of API servers agree. See service_alloc.go for the crash order.
package core
