package mount

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// attributes are the options of a mount that are not its filesystem's own: what each sets and clears.
var attributes = map[string]unix.MountAttr{
	"ro": {Attr_set: unix.MOUNT_ATTR_RDONLY}, "rw": {Attr_clr: unix.MOUNT_ATTR_RDONLY},
	"nosuid": {Attr_set: unix.MOUNT_ATTR_NOSUID}, "suid": {Attr_clr: unix.MOUNT_ATTR_NOSUID},
	"nodev": {Attr_set: unix.MOUNT_ATTR_NODEV}, "dev": {Attr_clr: unix.MOUNT_ATTR_NODEV},
	"noexec": {Attr_set: unix.MOUNT_ATTR_NOEXEC}, "exec": {Attr_clr: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime": {Attr_set: unix.MOUNT_ATTR_NODIRATIME}, "diratime": {Attr_clr: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow": {Attr_set: unix.MOUNT_ATTR_NOSYMFOLLOW}, "symfollow": {Attr_clr: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"noatime":     {Attr_set: unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME},
	"relatime":    {Attr_set: unix.MOUNT_ATTR_RELATIME, Attr_clr: unix.MOUNT_ATTR__ATIME},
	"strictatime": {Attr_set: unix.MOUNT_ATTR_STRICTATIME, Attr_clr: unix.MOUNT_ATTR__ATIME},
	"bind":        {}, "rbind": {}, "defaults": {}, "nofail": {}, "_netdev": {}, // said of every bind mount, or by fstab to itself
}

// Options reads a bind mount's options, later ones above earlier ones. The error names one that a bind mount does not have. It is pure.
func Options(options []string) (unix.MountAttr, error) {
	var out unix.MountAttr
	for _, o := range options {
		a, known := attributes[o]
		if !known {
			return out, fmt.Errorf("mount: option %q cannot be given to a folder that is mounted as it is", o)
		}
		out.Attr_set = out.Attr_set&^a.Attr_clr | a.Attr_set
		out.Attr_clr = out.Attr_clr&^(a.Attr_set&^unix.MOUNT_ATTR__ATIME) | a.Attr_clr
	}
	return out, nil
}

// Set changes the mount at path itself. Idempotent.
func Set(path string, a unix.MountAttr) error {
	if a == (unix.MountAttr{}) {
		return nil
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, &a); err != nil {
		return fmt.Errorf("mount: options of %s: %w", path, err)
	}
	return nil
}
