// Package nodelifecycle notices nodes that fall silent, turns node conditions into taints, and evicts pods that do not
// tolerate a NoExecute taint for longer.
//
// A node lives as long as its Lease in kube-node-lease is renewed (grace: 40 s). Silence is judged by this process' own
// clock since it last saw the Lease change, so that clocks that differ between machines evict nobody. If every node
// falls silent at once, the fault is more likely ours than theirs: taints are set, but nothing is evicted.
//
// taints.go and evict.go are pure; the shell keeps times of sight and timers by the queue's delays.
package nodelifecycle
