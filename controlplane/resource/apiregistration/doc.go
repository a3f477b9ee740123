// Package apiregistration describes the group apiregistration.k8s.io: APIService, by which a group version is served by
// this server itself or by a Service in the cluster.
package apiregistration
