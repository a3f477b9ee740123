// Package coordination describes the group coordination.k8s.io: Lease, the heartbeat of nodes and the lock of leaders.
package coordination
