// Package labtest is what tests with a whole server share: one server for a package's tests, servers of a test's own, kubectl
// that fails the test, manifests that go with the test, and waiting for conditions. Nothing in it measures time.
package labtest
