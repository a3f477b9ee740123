// Package workloads holds a running server to what the published conformance profile asserts of apps, nodes, networks, storage, scheduling and
// instrumentation, in checks of our own: each test names the spec it stands for. It is not part of `make test`: `make test-conformance` runs it.
package workloads
