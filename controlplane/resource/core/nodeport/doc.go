// Package nodeport gives out node ports: the ports of NodePort and LoadBalancer Services on every node.
//
// All taken ports are in one record in the store, beside the Services and unseen by the API. A change of it is one
// atomic update, so any number of API servers agree, and a Service gets all its ports or none.
//
// Crash order: ports are written before the Service and removed after it. A crash in between leaves an entry whose
// Service does not exist or does not use the port; it is taken over by whoever needs the port, once it is older than any
// request that might still be creating its Service.
package nodeport
