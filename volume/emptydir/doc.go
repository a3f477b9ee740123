// Package emptydir makes the scratch folder of a pod, on the node's disk or in memory.
package emptydir
