// Package authorization is the API group authorization.k8s.io: questions about what somebody may do. Nothing is stored.
package authorization
