// Package node describes the group node.k8s.io: RuntimeClass, the choice of a container runtime's handler.
package node
