// Command bench measures what the README claims, on this machine, beside a peer in the same run, and prints a table and JSON.
//
//	server  start from clean data to API ready, to node Ready, to a first pod Running; pod create to Running and delete to
//	        gone as a watcher sees them; memory (PSS) and CPU of all processes when idle; size of the binary
//	cri     pod up and down and exec over CRI, c=1 and c=10, with pod and host network, ours and containerd with runc
//
// Figures are never asserted here; targets stand beside them.
package main
