package image

// User is who a container's process runs as, looked up in its image.
type User struct {
	UID, GID       uint32
	AdditionalGIDs []uint32 // groups of /etc/group that list the user, without GID; sorted
	Name           string   // login name where /etc/passwd has one, else ""
	Home           string   // home directory by /etc/passwd, else ""
}

// ResolveUser looks user up ("", "name", "uid", "name:group", "uid:gid", ...: the
// image config's User or a pod's) in the root filesystem mounted at rootfs.
//
// /etc/passwd and /etc/group are resolved inside rootfs, must be regular files
// and are read up to a bound. Numbers must be plain decimal and fit an id that
// the kernel takes (0 to 2^31-1). An unknown name is an error, an unknown number
// is not. "" is root.
func ResolveUser(rootfs, user string) (User, error) {
	return resolveUser(rootfs, user)
}
