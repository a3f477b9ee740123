// Package runtime is the root of keelson's container runtime: containers and
// pod sandboxes as Linux processes, namespaces and cgroups.
//
// Two programs share the work. The daemon (pure Go) decides and records; the
// keeper (cmd/keelson-keeper, small, one per node) is the parent of every
// container: it starts them, pumps their logs and learns how they ended.
// Either may be killed at any moment; the other has what is needed to go on.
//
//	container/            daemon side: what containers there are, their life
//	sandbox/              daemon side: a pod's namespaces and cgroup
//	bundle/               a container's run directory: OCI spec, FIFOs, clamps
//	keeper/               frames between daemon and keeper, and the client
//	keeper/server/        the keeper itself: event loop, log pump, exits
//	engine/libcontainer/  how a process gets into its container (runc's library)
//	logfile/              CRI log format: records, writer, follower
//	cgroup/               cgroup v1, v2 and hybrid: paths, stats, kill, remove
//	runtimetest/          one behaviour suite over every engine
//
// Nothing here knows Kubernetes, CRI, images or networks: an OCI runtime spec
// comes in, states and events go out.
package runtime
