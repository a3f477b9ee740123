// Package hostpath checks that a path of the node is what a hostPath volume says it is, and makes it where the type allows.
package hostpath
