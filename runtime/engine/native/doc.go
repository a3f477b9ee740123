// Package native starts containers without a helper program: it computes, as
// plain data, the system calls that turn a fresh process into a container's,
// and a few lines of C in the keeper (launcher) make them. Where runc's init
// is a Go program that is executed anew for each start and exec, here one
// clone of a tiny process runs a list.
//
//	daemon   Compile(spec) ──> an image: instructions and their data
//	keeper   launcher: clone a child, map the image at Base, run it
//	child    setsid, cgroups, namespaces, mounts, pivot_root, user,
//	         capabilities, seccomp, execve
//
// The image is mapped at a fixed address, so every pointer in it (argv, mount
// options, the seccomp filter) is computed here, and the interpreter knows
// nothing but "make this call with these arguments; on an error go there". All
// decisions are in this package, pure Go, where they can be read and tested.
//
// What is not covered is said by Supported (user namespaces, SELinux and
// whatever is rare); such containers are libcontainer's. A container that was
// started here is also entered here.
//
// Paths inside the container's root are resolved by openat2(RESOLVE_IN_ROOT)
// and used by descriptor: no component, whoever swaps it, leads out. Mounts are
// made detached, given their attributes, and only then attached.
//
// Needs Linux 5.12 (mount_setattr).
package native
