// Package cgroup makes, reads, limits, kills and removes control groups, on
// cgroup v2, on v1 (one hierarchy per controller) and on hybrid machines
// (v1 with a bare v2 beside it), which are treated as v1.
//
// A Group is named by its path below the hierarchy's root, such as
// /kubepods/burstable/pod<uid>/<container>; the same path is used in every v1
// hierarchy. A Group is a value without state: several processes may work on
// the same one, and every operation is idempotent. Writing limits is left to
// github.com/opencontainers/cgroups; statistics are read here, since only a few
// of its files are needed and they are read often.
//
// Nothing here touches a cgroup outside the path it was given.
package cgroup
