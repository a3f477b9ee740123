// Package arch turns the architecture's rules into tests: who may import whom, and how large a thing may grow.
// A rule that must be broken is listed in exceptions.go with the reason; the list is reviewed like code.
package arch
