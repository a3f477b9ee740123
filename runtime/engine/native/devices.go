package native

import (
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// usualDevices are in every container, whatever its spec says.
var usualDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// devices fills /dev, unless the spec binds one there.
func (b *builder) devices() error {
	for _, m := range b.spec.Mounts {
		if filepath.Clean(m.Destination) == "/dev" && (m.Type == "bind" || parseOptions(m.Options).bind) {
			return nil
		}
	}
	given := map[string]bool{}
	for _, d := range b.spec.Linux.Devices {
		given[filepath.Clean(d.Path)] = true
		if err := b.device(d); err != nil {
			return err
		}
	}
	for _, d := range usualDevices {
		if !given[d.Path] {
			if err := b.device(d); err != nil {
				return err
			}
		}
	}
	for _, link := range [][2]string{
		{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	} {
		b.symlink(link[0], link[1])
	}
	im := b.image
	noCore := im.label()
	im.do("look for /proc/kcore", sysFaccessat2, cwd(), im.str("/proc/kcore").arg(), imm(0), imm(0)).onError(noCore)
	b.symlink("/proc/kcore", "/dev/core")
	im.place(noCore)
	dir := b.point("/dev", true, false)
	im.do("remove /dev/ptmx", sysUnlinkat, dir.arg(), im.str("ptmx").arg(), imm(0)).unless(uint16(unix.ENOENT))
	im.do("symlink /dev/ptmx", sysSymlinkat, im.str("pts/ptmx").arg(), dir.arg(), im.str("ptmx").arg())
	im.close(dir)
	return nil
}

// device makes a device node. One that is there is replaced: what an image
// ships under such a name is not to be trusted.
func (b *builder) device(d specs.LinuxDevice) error {
	kind := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}[d.Type]
	if kind == 0 || d.Path == "" || filepath.Clean(d.Path) == "/" {
		return fmt.Errorf("device %q of type %q cannot be made", d.Path, d.Type)
	}
	mode := os.FileMode(0o666)
	if d.FileMode != nil {
		mode = d.FileMode.Perm()
	}
	im := b.image
	what := "make device " + d.Path
	dir := b.point(path.Dir(filepath.Clean(d.Path)), true, false)
	name := im.str(path.Base(d.Path))
	im.do(what, sysUnlinkat, dir.arg(), name.arg(), imm(0)).unless(uint16(unix.ENOENT))
	im.do(what, sysMknodat, dir.arg(), name.arg(), imm(kind|uint32(mode)), imm(unix.Mkdev(uint32(d.Major), uint32(d.Minor))))
	// The umask took bits away.
	im.do(what, sysFchmodat, dir.arg(), name.arg(), imm(uint32(mode)))
	if d.UID != nil || d.GID != nil {
		uid, gid := int64(-1), int64(-1)
		if d.UID != nil {
			uid = int64(*d.UID)
		}
		if d.GID != nil {
			gid = int64(*d.GID)
		}
		im.do(what, sysFchownat, dir.arg(), name.arg(), imm(uid), imm(gid), imm(unix.AT_SYMLINK_NOFOLLOW))
	}
	im.close(dir)
	return nil
}

// terminal makes the container's terminal, hands its master to the daemon and
// makes it this process's own. It runs in the container's root.
func (b *builder) terminal(uid uint32, size *specs.Box, console bool) {
	im := b.image
	master, slave := im.reg(), im.reg()
	what := "open terminal"
	im.do(what, sysOpenat, cwd(), im.str("/dev/pts/ptmx").arg(), imm(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).into(master)
	im.do(what, sysIoctl, master.arg(), imm(unix.TIOCSPTLCK), im.words(0).arg())
	im.do(what, sysIoctl, master.arg(), imm(unix.TIOCGPTPEER), imm(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).into(slave)
	if size != nil && size.Width > 0 && size.Height > 0 {
		ws := im.words(uint64(size.Height&0xffff) | uint64(size.Width&0xffff)<<16)
		im.do("set terminal size", sysIoctl, master.arg(), imm(unix.TIOCSWINSZ), ws.arg())
	}
	im.do(what, sysFchown, slave.arg(), imm(uid), imm(int64(-1))).ignore()
	if console {
		b.console(slave)
	}
	im.sendFile("hand over terminal", RegConsole, master)
	im.close(master)
	for fd := range 3 {
		im.do(what, sysDup3, slave.arg(), imm(fd), imm(0))
	}
	im.close(slave)
	im.do("take terminal", sysIoctl, imm(0), imm(unix.TIOCSCTTY), imm(0))
}

// console shows the terminal as /dev/console.
func (b *builder) console(slave reg) {
	im := b.image
	what := "mount terminal on /dev/console"
	im.do(what, sysMknodat, cwd(), im.str("/dev/console").arg(), imm(unix.S_IFREG|0o600), imm(0)).unless(uint16(unix.EEXIST))
	mount := im.reg()
	im.do(what, sysOpenTree, slave.arg(), im.str("").arg(),
		imm(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)).into(mount)
	im.do(what, sysMoveMount, mount.arg(), im.str("").arg(), cwd(), im.str("/dev/console").arg(), imm(unix.MOVE_MOUNT_F_EMPTY_PATH))
	im.close(mount)
}
