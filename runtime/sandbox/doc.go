// Package sandbox holds a pod's namespaces.
package sandbox
