// Package mounttest runs a package's tests in a mount namespace of their own, so that no mount of a test outlives it,
// whatever fails.
package mounttest
