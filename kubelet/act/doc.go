// Package act carries out what kubelet/plan decided, over CRI: it makes sandboxes and containers from the pod's
// spec, runs lifecycle hooks, stops and removes. Each method is one action, blocks until it has taken effect or
// failed, and may be repeated after a failure.
//
// What goes into a container's configuration is computed in small files by topic: env.go, field.go, mounts.go,
// security.go, dns.go, hosts.go. A failure that a user can mend comes as *Error with the reason that the container's
// waiting state shows.
//
// Invariants: host paths that containers can write to (subPath sources, termination logs, etc-hosts) are opened
// without following links out of their volume and passed on by descriptor or by a path of our own making. Secret
// and environment values are never logged nor put into errors.
//
// Ownership: an Executor has no goroutines of its own and no mutable state; callers run its methods concurrently
// for different pods, and Stop concurrently with everything.
package act
