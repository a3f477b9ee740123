// Package discovery describes the group discovery.k8s.io: EndpointSlice, the addresses behind a Service.
package discovery
