// Package shutdown ends a node's pods in order when the machine shuts down (KEP-2000, KEP-2712). It holds systemd-logind's
// inhibitor lock of kind "delay"; when logind says that the machine is about to shut down, it has the node refuse new pods,
// ends those that run, the least important first, each group within its own time, and then lets the lock go.
//
// Plan is pure: (pods, periods) -> groups. Manager is the shell over D-Bus. Without a system bus or logind there is nothing to
// wait for, and nothing is done. What logind allows in all (InhibitDelayMaxSec, 5 s unless configured) bounds all groups
// together: periods that sum up to more are shortened in proportion, because logind would not wait for them.
//
// The end of the daemon alone is not the end of the machine: pods go on, as always.
package shutdown
