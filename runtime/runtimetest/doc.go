// Package runtimetest is the behaviour suite of the container runtime: real
// containers from busybox under a real keeper. Every engine must pass it.
//
// A Node is a container manager with a directory, a root filesystem and a
// cgroup of its own; at the test's end it checks that no process, mount,
// cgroup or descriptor of it is left. The tests need root and busybox-static.
package runtimetest
