// Package bundle is a container's run directory: the one place on disk that
// the daemon, the keeper and the engine share.
//
//	<dir>/                0711, so that a mapped root can reach its fifo
//	  config.json         the OCI spec (0600)
//	  stdin stdout stderr FIFOs, as far as the container has them
//	  init.json           written by the keeper before the process may run
//	  exit.json           written by the keeper before the end is reported
//	  record.json         the daemon's record
//	  engine/             the engine's own state
//
// Files are replaced by rename and never synced: the directory lives on tmpfs
// and what it says is void after a reboot.
//
// Clamp is pure. Directories belong to the container manager, which makes and
// removes them.
package bundle
