// Package libcontainer starts containers with runc's library: the reference
// engine. It needs cgo (a C constructor joins namespaces before the Go runtime
// starts) and a process that re-executes itself as "init": only the keeper's
// program imports it, and its main package must call Init first.
//
// Its state of a container is under <dir>/engine. The library tolerates several
// containers at once, and several execs in one; a container's start and its
// execs are never concurrent (a container that has not started has no execs).
package libcontainer
