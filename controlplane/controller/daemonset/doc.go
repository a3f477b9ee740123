// Package daemonset keeps one pod on every node that it may run on.
//
// plan.go is pure: the set, its newest template's hash, the nodes and the pods in, the next step out. The shell creates
// pods pinned to their node by affinity (the scheduler still checks that they fit) and deletes.
package daemonset
