// Package controlplane is the replicated API: what a cluster wants and what it saw.
//
//	store/       embedded etcd in this process: Raft, MVCC, watch, encryption at rest
//	resource/    every served kind as data: defaults, validation, columns (pure)
//	auth/        certificates, tokens, RBAC and Node authorization
//	admission/   checks and changes between authorization and storage
//	apiserver/   the table of kinds turned into a Kubernetes API over HTTPS and in process
//	scheduler/   which node a pod runs on (a client of the API)
//	controller/  the reconcilers (clients of the API)
//
// Invariants: etcd is known to store alone; nothing here knows a node's insides (a kubelet is an HTTPS peer at an
// address); scheduler and controllers have no side door, they are clients under their own identities; nothing assumes
// that this server is the only one.
package controlplane
