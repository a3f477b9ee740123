// Package lab starts whole instances of keelson for tests and benchmarks: the real binary, as a user starts it, on its
// own data directory, bridge, address ranges, ports and cgroup, so that it meets neither another instance nor the host's.
//
// An instance is always removed with `keelson uninstall`, which is thereby tested by every test that uses one.
package lab
