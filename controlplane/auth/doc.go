// Package auth says who a request is from and what it may do.
//
// Who: client certificates of the cluster's CA, ServiceAccount tokens (JWT), the front proxy's headers, and nothing else.
// What: RBAC and the Node authorizer, both fed by the watch caches of this process.
//
// PKI is made on first start: a CA for clients and serving, a CA for the front proxy, and the key that signs
// ServiceAccount tokens. Only these three are on disk; every leaf certificate is made when it is needed, so rotation is
// a restart or a call, and addresses in it are always the present ones.
//
// Invariants: a private key never leaves its 0600 file but in memory; anonymous requests reach only /livez, /readyz,
// /healthz and /version; an authorizer whose caches are not yet filled denies, except to system:masters.
package auth
