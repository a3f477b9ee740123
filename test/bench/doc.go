// Command bench measures what the README claims, on this machine, beside peers in the same run, and prints a table and JSON.
//
//	server    start from clean data to API ready, to node Ready, to a first pod Running; pod create to Running and delete to
//	          gone as a watcher sees them; memory (PSS) and CPU of all processes at rest; size of the binary; restart with data
//	workload  Deployment 0 -> 50 -> 0 -> 100; one more pod beside 100; memory and CPU at rest with 100 pods
//	service   Service created, and endpoint added, to the first answer, beside 10, 1,000 and 10,000 Services; DNS
//	cri       `keelson cri` and the peers over CRI: pod up and down and exec, c=1 and c=10; 50 idle pods; programs executed;
//	          pull of a large image
//
// Figures are never asserted here; targets stand beside them. On a busy machine believe the ratios and the CPU times: what others
// do is in every wall time.
package main
