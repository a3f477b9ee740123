// Package provision is the built-in provisioner: it makes volumes of claims whose class names it as folders and disk images
// of one node, lets them grow, and removes them when they are released and their policy is Delete.
//
// It acts on a node's disk by name alone (a volume is called pvc-<claim's uid>): no path, parameter or template of the API
// reaches the disk. The disk is written before the object that speaks of it, and removed before it: a crash between the two
// leaves something that the next look finishes. A finalizer holds the object until its data is gone.
//
// Each node's instance serves the claims that the scheduler gave to its node; a claim that binds at once goes to the node of the
// server.
//
// What every provisioner does alike (when it is asked, how a volume ends) is exported, for that of CSI drivers.
package provision
