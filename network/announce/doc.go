// Package announce draws traffic for load balancer addresses to this node: it answers ARP for them on the node's networks and
// announces them when they come (RFC 826, RFC 5227). The addresses are on no interface: what is sent to them meets the packet
// filter's rules for Services and nothing else of the node.
//
// Invariants:
//   - Only an interface whose own network holds the address is spoken on, and only under its own hardware address.
//   - Whoever else claims an announced address is reported; the address is defended once in ten seconds at most, so that two
//     nodes that both have it do not flood the network.
//
// Ownership: Run owns the sockets and goroutines and ends them before it returns. The one mutex guards the set of addresses and is
// not held over I/O.
package announce
