// Package dns is the cluster's DNS server, in the node's own process, on the well-known kube-dns Service address.
//
// It answers the cluster's zone from Services and EndpointSlices (specification: kubernetes/dns, version 1.1.0) and everything
// else from the node's own resolvers, through a cache. Each node answers its own pods: the Service address lies on the node's bridge, so
// a question never crosses the network, takes no translation and no conntrack entry (there is no race of parallel A and AAAA
// questions to lose, and a full table does not stop it).
//
//   - [Zone] holds the records; it is fed objects one by one and keeps no reference to a client.
//   - [Resolver] asks upstream servers: each question once however many ask it, two seconds at most, an expired answer rather than none.
//   - [Server] listens.
//
// Invariants:
//   - A question of the cluster's zone never leaves the node.
//   - The server never asks itself: its own addresses are struck from the upstreams, and a question that comes back by way of
//     others joins the one that is under way, so a loop ends with SERVFAIL after two seconds and does not grow.
//   - Memory is bounded: cache entries, questions under way and questions per client have limits.
//
// Ownership: Server.Run owns all goroutines. Lock order: Zone, Resolver and cache have a mutex each; none is held over I/O or
// while another is taken.
package dns
