// Package authentication is the API group authentication.k8s.io: questions about who somebody is. Nothing is stored.
package authentication
