// Package apiserver turns the table of kinds (controlplane/resource) into a Kubernetes API.
//
// New opens the store, makes the PKI and builds everything; Run serves until its context ends. In between, the way of a
// request is:
//
//	HTTPS or in process -> who (auth) -> may it (auth) -> decode, default -> admission -> strategy (resource) -> store
//
// Lean on purpose: the handler chain has only filters that a request needs, OpenAPI documents are made at build time,
// and the schema that server-side apply needs is parsed in the background once the server is ready.
//
// In-process clients (ClientConfig) enter the same chain behind TLS: no socket and no handshake, but authorization,
// admission and validation under their own identity.
//
// Ownership: Server owns the store, its listener and every goroutine it starts; Run returns after all of them have
// ended. Nothing here assumes that this is the cluster's only server.
package apiserver
