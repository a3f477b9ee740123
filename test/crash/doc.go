// Package crash ends the runtime's programs at every place where a record and
// an effect are written apart (runtime/failpoint), and looks at what the next
// start makes of it.
//
// A cell of the matrix is a point and who dies there: the daemon, the keeper,
// or both. The program that comes to the point kills itself, or stops there
// while the test kills the other. A scenario of a node's life (pull, import,
// pod, containers, exec, update, log rotation, restart, upgrade, stop, remove)
// goes on meanwhile as a kubelet would: a call that failed is made again.
//
// At the end no container was lost or doubled, exit codes are the processes'
// own, every line of output was logged once, and everything else is as it was
// before: processes, mounts, namespaces, links, addresses, rules, cgroups,
// descriptors, files.
//
// `make test-crash` (-full) runs all of the matrix. Without the flag, as in
// `make test`, each point ends the program that comes to it.
package crash
