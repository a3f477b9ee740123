// Package critest runs the critest that a user supplies against our runtime:
//
//	make critest CRITEST=/path/to/critest
//
// It serves the images that critest names from a registry of its own, starts
// `keelson cri` on places of its own with mirrors that lead there, and removes
// everything afterwards. Nothing of cri-tools is built or kept here.
package critest
