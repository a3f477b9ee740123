// Package e2e is a stranger's session with the built binary: a registry over HTTP with images made here, a server on a
// clean data directory, and kubectl, from apply to uninstall. Tests share one server; those that kill or need an unusual
// one start their own.
package e2e
