// Package main (apidiff) asks two API servers the same questions and lists where their answers differ.
//
// A corpus of objects, one or more of every kind, is sent to both: as it is, and with one thing at a time made wrong,
// odd or missing (the walk follows the object and the published schema, so it also adds what the object does not have).
// Each variant is created, put over the existing object and put to its status, all as dry runs; codes, messages, field
// paths, warnings, the objects returned and the tables shown must be the same. What is each server's own (addresses,
// ports, times, names of its own making) is masked first.
//
//	go run ./test/apidiff -peer KUBECONFIG [-ours KUBECONFIG] [-kinds Pod,Service] [-modes create,table] [-out DIR]
//
// The peer should be a fresh Kubernetes of the version that we answer with, with the same service range and without
// controllers that change the objects meanwhile.
package main
