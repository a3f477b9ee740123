// Package sandbox makes what the containers of a pod share: namespaces, a
// cgroup, shared memory. There is no process behind it: each namespace is kept
// by a bind mount in the sandbox's directory.
//
//	<StateDir>/<id>/sandbox.json   the record
//	<StateDir>/<id>/ns/{ipc,uts,pid}   pins, one for each namespace of its own
//	<StateDir>/<id>/shm            tmpfs, the pod's /dev/shm
//
// The network namespace is made and kept by others; its path comes in. A
// shared PID namespace is the exception that needs a process: its pid 1, a
// few pages of C in the keeper's program (mode "pause"), in an empty root of
// its own, which reaps what is orphaned to it.
//
// Namespaces are made on a thread that is thrown away afterwards, since a
// thread that was in one cannot be trusted with other work.
//
// Records: "creating" is written before the first effect, "removing" before
// the first is undone; New finishes what either left. Undoing needs no record
// of what was done: each step is safe without its do.
//
// Locks: one for each sandbox (excluding Create and Remove of the same id),
// Manager.mu for the map only.
package sandbox
