// Package keeper is the protocol between the daemon and the keeper, and the
// daemon's client for it.
//
// One unix SEQPACKET socket, root only, peer credentials checked on both
// sides. One message is one frame: a fixed header and a JSON body of at most
// MaxFrame bytes; file descriptors travel beside it (SCM_RIGHTS). Anything
// large (an OCI spec, a process with its environment) is passed by path.
// Requests carry a number that their reply repeats; events carry none.
//
// The socket's directory also holds a lock file. The keeper inherits it locked
// and keeps it so: while it is locked, a keeper lives. The daemon makes the
// listening socket and hands it over, so that there is no moment at which the
// keeper exists and cannot be reached.
//
// Ownership: a Client owns its connection and one reading goroutine, which
// Close stops. Files passed to a call stay the caller's; files in a reply
// become the caller's. Lock order: Client.mu only, never held across I/O.
package keeper
