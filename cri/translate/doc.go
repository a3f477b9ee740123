// Package translate computes an OCI runtime spec from a CRI request.
//
// It is pure: no clock, no file, no socket, no logger. What must be read from
// the machine (a resolved mount source, a device's numbers, the bytes of a
// localhost seccomp profile, the user's entry in the image) arrives as a value
// in Input, gathered by the caller. Two calls with one Input give one Spec.
//
// Invariants of every Spec returned:
//   - the inheritable capability set is empty unless ambient capabilities were
//     asked for (CVE-2022-24769);
//   - the additional groups hold the primary one (CVE-2022-2995);
//   - no hook is ever set: nothing in a request or an image can name a program
//     to run on the host;
//   - a device that is not listed is denied by the device cgroup, unless the
//     container is privileged;
//   - a request that cannot be honoured is an error that wraps ErrInvalid; a
//     security option is never dropped silently.
package translate
