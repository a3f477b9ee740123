// Package pull makes sure that a container's image is on the node: reference check, pull policy, credentials from
// pull secrets, the pull itself over CRI, and the Events that tell of it in upstream's words.
//
// It keeps no back-off: kubelet/plan does, and asks again when it is time. It keeps no copy of secrets either.
// Concurrency: Ensure may be called from many goroutines; how many pulls go on at once is bounded by Config.Parallel.
package pull
