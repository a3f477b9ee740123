// Package endpointslice writes, for every Service with a selector, the addresses behind it as EndpointSlices.
//
// plan.go is pure: Service, pods, nodes and existing slices in, changes out. An endpoint stays in the slice in which it
// is, so that a pod's change rewrites one slice; slices are filled to 100 endpoints. The shell reads informers' stores
// and writes. A pod that is being deleted stays as terminating (and serving, while it is ready), which lets proxies
// drain it; a pod that has ended is left out.
package endpointslice
