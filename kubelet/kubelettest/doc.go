// Package kubelettest has the kubelet's test double of a runtime: a working model of CRI v1 in memory, served over a
// real gRPC connection (bufconn), so that tests exercise the same client, interceptors and streams as production.
// It follows CRI's rules (idempotent stops and removals, NotFound, one name per attempt) and keeps a journal of calls.
// What containers do is chosen by image name; see Runtime.
package kubelettest
