# What a container may do beside what capabilities, namespaces and seccomp say: anything with its own files, nothing with
# the kernel's switches, which are the whole node's. Where both say something, deny counts.
@{PROC}=/proc/

profile keelson-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  unix,
  deny mount,

  # Whoever stops it from outside, and its own processes among themselves.
  signal (receive) peer=unconfined,
  signal (send, receive) peer=keelson-default,
  ptrace (trace, read, tracedby, readby) peer=keelson-default,

  # Of /proc the processes' own folders are left, and of sys what is in a namespace.
  deny @{PROC}/* w,
  deny @{PROC}/[^1-9s]*/** w,
  deny @{PROC}/s[^y]*/** w,
  deny @{PROC}/sy[^s]*/** w,
  deny @{PROC}/sys/[^kn]** w,
  deny @{PROC}/sys/kernel/[^s]** w,
  deny @{PROC}/sys/kernel/s[^h]** w,
  deny @{PROC}/sys/kernel/sh[^m]** w,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/kcore rwklx,

  # Of /sys the cgroups.
  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/fs/c[^g]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
