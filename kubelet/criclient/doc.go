// Package criclient is the kubelet's line to a CRI v1 runtime: a gRPC connection over a unix socket with message
// limits, a deadline on every unary call that has none, and call metrics. It adds no meaning to the calls.
//
// Ownership: who made the Client closes it. A Client is safe for concurrent use.
package criclient
