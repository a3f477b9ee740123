// Package test holds only what no single package can prove.
//
//	arch      the import matrix and the size budget
//	crisuite  the behaviour of a CRI server, whoever wrote it
//	crash     kill -9 at every place where a record and an effect are written apart
//	e2e       a stranger's session: registry, images, server, kubectl
//	bench     every figure that the project claims, beside a peer
//
// Nothing outside this folder imports it.
package test
