// Package crisuite says what a CRI runtime must do, as a suite that runs against
// any endpoint: the real server over a unix socket (the tests of this package),
// the kubelet's fake, or another runtime.
//
// Suite lists the behaviours; each is a function over a Client and makes its own
// pods under names of its own, so that they may run side by side and on a
// machine in use. A behaviour that needs real processes says so, and is left out
// where the Target has none.
//
// Node is the real stack in one process for tests and benchmarks: image store,
// runtime with its keeper, network and CRI server under a directory, bridge and
// cgroup of its own. Its Close checks that nothing is left: no mount, network
// namespace, link, cgroup, process, file or packet filter rule.
package crisuite
