// Program agnhost is what the conformance suite's pods run: small servers whose answers name themselves. Its name and verbs are those of the
// field's own test image, so that a spec's words fit.
package main
