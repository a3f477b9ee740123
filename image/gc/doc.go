// Package gc decides what an image store may delete. Pure: sets in, sets out.
//
// Invariant: nothing that an image, a mount or a running pull (a lease) names is
// ever in a Plan.
package gc
