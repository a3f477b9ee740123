// Package container keeps a node's containers: it records them, has the keeper
// start them, follows them to their end, and finds them all again after either
// program was killed.
//
//	                    Start                 process ends
//	Created ──────────> (starting) ─> Running ─────────────> Exited
//	   │                    │                                  │
//	   │                    └── cannot start: StartError ────> │
//	   └──────────────────────── Remove ───────────────────────┴─> gone
//
// Records. Each container has a run directory with record.json (see bundle for
// the rest). A record is written before the effect that it announces:
// "starting" before the keeper is asked, "removing" before the first thing is
// taken away. So whatever Open finds, it knows what may have happened since,
// and decides with reconcile (pure) from the record and the facts.
//
// What survives what. The daemon holds a second handle of everything the
// keeper holds (pidfd, terminal master, the FIFOs by open file): if the keeper
// is killed, a new one is started and adopts every container with them; exit
// codes come from the pidfds. If the daemon is killed, the keeper goes on and
// tells the next daemon. If both are killed, containers still run and are
// adopted by path and pid; only a container that ends while neither lives
// loses its exit code (Reason Unknown).
//
// Concurrency. Create, Start, Update and Remove of one container exclude each
// other (container.op); Stop, Kill, Exec, Attach and State never wait for
// them. There is no lock over all containers that is held across I/O.
//
// Lock order: Manager.mu, then container.mu; neither is held across I/O but
// for container.mu over the write of its own record (a rename on tmpfs), which
// keeps memory and record the same.
package container
