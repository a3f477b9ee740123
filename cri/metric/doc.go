// Package metric makes the metrics of ListPodSandboxMetrics: cAdvisor's names and
// labels, which dashboards and alerts know, from what the kernel counts.
//
// table.go is the list of metrics, pure: a Sample in, metrics out. read.go fills
// the part of a Sample that the runtime's own statistics leave out.
//
// Invariants: every metric that is given has a descriptor, and as many label
// values as that has keys. Values are whole numbers, as the API has it: seconds
// are rounded down. A source that the kernel lacks leaves its metric out, never
// at a false zero; a count that the kernel has not begun is zero.
package metric
