// Package scheduling describes the group scheduling.k8s.io: PriorityClass, with the two classes that every cluster has.
package scheduling
