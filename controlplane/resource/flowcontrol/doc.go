// Package flowcontrol describes the group flowcontrol.apiserver.k8s.io: FlowSchema, which sorts requests, and
// PriorityLevelConfiguration, which shares the server among them. The objects of a new cluster are the library's
// (k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap); Bootstrap completes them.
package flowcontrol
