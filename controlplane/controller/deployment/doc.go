// Package deployment rolls a Deployment's pod template out through ReplicaSets.
//
// plan.go and rolling.go are pure: the Deployment, its ReplicaSets and the time in; a Plan of at most a few changes out
// (create the new set, scale sets, delete old ones, the new status). The shell executes it and is called again by what
// it changed: each pass is one small step, so that a crash between steps loses nothing.
//
// Invariants of a rolling update: available pods never fall below replicas - maxUnavailable by our doing, and all pods
// never exceed replicas + maxSurge.
package deployment
