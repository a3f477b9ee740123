// Package systemdbus is a working model of systemd's manager on a private
// D-Bus: it takes the calls by which cgroup drivers make slices and scopes, and
// makes these cgroups for real, on the v1 hierarchies of this machine. Like
// systemd it sets what a unit does not name back to the defaults, when the unit
// is made and at every reload.
package systemdbus
