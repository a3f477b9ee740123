// Package nri lets a node's plugins take part in the life of pods and
// containers, by the Node Resource Interface (github.com/containerd/nri): they
// connect to a socket, are told of every pod and container, and may change a
// container before it is made (environment, mounts, devices, hooks, limits) and
// the limits of any later.
//
// Hub is the shell around the library's adaptation; Pod and Container (view.go)
// and Adjust (adjust.go) are pure.
//
// Invariants:
//   - Without a plugin a hook costs a read lock: no view is built.
//   - A plugin that does not answer within RequestTimeout is disconnected, and
//     the call goes on without it. One that answers with an error fails the
//     call that may fail (making and starting) and is noted otherwise.
//   - A plugin that connects hears of every container exactly once: in its
//     first synchronization, which lists what is being made too, or by a hook.
//   - A container's stop is told once, whoever noticed it, and before its
//     removal.
//
// Trust: whoever may write to the socket or to the plugin folder is root's
// equal; what a plugin asks for is not checked against a pod's rights.
package nri
