// Package netfiltertest runs a package's tests on a kernel of their own, as far as networks go: the test binary starts itself
// again in a new network and mount namespace, so that tests may use any link, rule and address and nothing of the machine is touched,
// whatever fails.
package netfiltertest
