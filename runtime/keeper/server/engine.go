package server

import "os"

// Engine puts processes into containers. Its calls may run side by side, also
// for one container; each returns once the process runs its program (or, for
// an execve that fails, has ended). Everything it must remember it keeps in
// the container's directory, since its process may be killed at any moment.
type Engine interface {
	// Start makes the container's first process. created is called with its
	// pid, as this process's child, before the program may run; its error
	// undoes everything. A *keeper.Failure of KindStart says that the
	// container itself is at fault. On error no process is left.
	Start(s Start, created func(pid int) error) error
	// Exec makes a further process in a running container and returns its
	// pid, as this process's child.
	Exec(e Exec) (pid int, err error)
	// Owns says that pid is a helper of the engine's, not to be reaped.
	Owns(pid int) bool
	// Seccomp compiles the profile (an OCI seccomp object as JSON) at from
	// into the filter at to.
	Seccomp(from, to string) error
}

// Start is a container to start: its bundle is in Dir.
type Start struct {
	ID, Dir string
	Stdio
}

// Exec is a process to start in a container; Process is the path of its OCI
// description or its program. Target is a pidfd of the container's first
// process.
type Exec struct {
	ID, Dir, Process string
	Target           *os.File
	Stdio
}

// Stdio is what a process gets as 0, 1 and 2 (nil: /dev/null), or Console, a
// socket to which the master of its terminal is to be sent.
type Stdio struct {
	In, Out, Err *os.File
	Console      *os.File
}
