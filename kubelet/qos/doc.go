// Package qos turns requests and limits into what the kernel enforces: the pod's class, each container's cgroup
// values and OOM score, and the tree of cgroups that holds them:
//
//	<root>/kubepods                    node allocatable
//	<root>/kubepods/pod<uid>           Guaranteed
//	<root>/kubepods/burstable/pod<uid>
//	<root>/kubepods/besteffort/pod<uid>
//
// The computation (class.go, resources.go) is pure. Tree writes the cgroups above the containers; those of the
// containers themselves belong to the runtime. Invariants: only cgroups under <root>/kubepods are ever touched; a
// pod's cgroup exists before its sandbox and goes after it. Tree has one lock, a leaf, held while writing cgroup
// files so that two pods do not interleave on the class cgroups.
package qos
