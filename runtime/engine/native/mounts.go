package native

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// inRoot is how paths of a container are looked up from its root's descriptor:
// they end inside it, and magic links (of a /proc in it) are not followed.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

const pathFlags = unix.O_PATH | unix.O_CLOEXEC

// mountOptions are a mount's options, sorted by who they are for.
type mountOptions struct {
	set, clear     uint64 // MOUNT_ATTR_*, of the mount itself
	recSet, recClr uint64 // of all mounts below it too
	propagation    uint64
	recursive      bool // the propagation's
	bind, rbind    bool
	data           []string // the filesystem's
}

var attrOf = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV,
	"noexec": unix.MOUNT_ATTR_NOEXEC, "nodiratime": unix.MOUNT_ATTR_NODIRATIME, "nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
}

var clearOf = map[string]uint64{
	"rw": unix.MOUNT_ATTR_RDONLY, "suid": unix.MOUNT_ATTR_NOSUID, "dev": unix.MOUNT_ATTR_NODEV,
	"exec": unix.MOUNT_ATTR_NOEXEC, "diratime": unix.MOUNT_ATTR_NODIRATIME, "symfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
}

// atimeOf are values of one field, not bits.
var atimeOf = map[string]uint64{
	"relatime": unix.MOUNT_ATTR_RELATIME, "noatime": unix.MOUNT_ATTR_NOATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME,
}

var propagationOf = map[string]uint64{
	"private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
}

// unsupportedOptions are left to libcontainer.
var unsupportedOptions = []string{
	"remount", "tmpcopyup", "idmap", "ridmap", "sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime",
	"iversion", "noiversion", "silent", "loud", "atime", "norelatime", "nostrictatime",
}

func parseOptions(options []string) (o mountOptions) {
	for _, opt := range options {
		name, rec := opt, false
		if cut, ok := strings.CutPrefix(opt, "r"); ok && isRecursive(cut) {
			name, rec = cut, true
		}
		switch {
		case opt == "bind":
			o.bind = true
		case opt == "rbind":
			o.bind, o.rbind = true, true
		case opt == "defaults":
		case propagationOf[name] != 0:
			o.propagation, o.recursive = propagationOf[name], rec
		case attrOf[name] != 0 && rec:
			o.recSet |= attrOf[name]
		case clearOf[name] != 0 && rec:
			o.recClr |= clearOf[name]
		case attrOf[name] != 0:
			o.set, o.clear = o.set|attrOf[name], o.clear&^attrOf[name]
		case clearOf[name] != 0:
			o.clear, o.set = o.clear|clearOf[name], o.set&^clearOf[name]
		case isAtime(name):
			o.set = o.set&^unix.MOUNT_ATTR__ATIME | atimeOf[name]
			o.clear |= unix.MOUNT_ATTR__ATIME
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

// isRecursive says that "r" before name is a mount option of its own.
func isRecursive(name string) bool {
	return propagationOf[name] != 0 || attrOf[name] != 0 || clearOf[name] != 0
}

func isAtime(name string) bool {
	_, ok := atimeOf[name]
	return ok
}

// point finds where dest is in the container and makes it if it is missing: a
// directory, or a file to bind a file to. The register holds its descriptor.
func (b *builder) point(dest string, dir, plain bool) reg {
	return b.pathInRoot("mount point "+filepath.Clean("/"+dest), dest, dir, plain)
}

func (b *builder) pathInRoot(what, dest string, dir, plain bool) reg {
	im := b.image
	flags, resolve := uint64(pathFlags), uint64(inRoot)
	if dir {
		flags |= unix.O_DIRECTORY
	}
	if plain {
		// /proc and /sys: whoever swaps them for a symlink would have later
		// steps write into other files (CVE-2019-16884 and its kin).
		resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	out := im.reg()
	dest = strings.TrimPrefix(filepath.Clean("/"+dest), "/")
	how, size := im.openHow(flags, 0, resolve)
	found := im.label()
	im.do(what, sysOpenat2, b.root.arg(), im.str(orDot(dest)).arg(), how.arg(), size).into(out).unless(uint16(unix.ENOENT)).then(found)
	parts := strings.Split(dest, "/")
	for i, name := range parts {
		parent := im.reg()
		dirHow, dirSize := im.openHow(pathFlags|unix.O_DIRECTORY, 0, inRoot)
		im.do(what, sysOpenat2, b.root.arg(), im.str(orDot(strings.Join(parts[:i], "/"))).arg(), dirHow.arg(), dirSize).into(parent)
		if i == len(parts)-1 && !dir {
			im.do(what, sysMknodat, parent.arg(), im.str(name).arg(), imm(unix.S_IFREG|0o644), imm(0)).unless(uint16(unix.EEXIST))
		} else {
			im.do(what, sysMkdirat, parent.arg(), im.str(name).arg(), imm(0o755)).unless(uint16(unix.EEXIST))
		}
		im.close(parent)
	}
	im.do(what, sysOpenat2, b.root.arg(), im.str(orDot(dest)).arg(), how.arg(), size).into(out)
	im.place(found)
	return out
}

func orDot(p string) string {
	if p == "" {
		return "."
	}
	return p
}

// newFS makes a filesystem, mounted nowhere yet.
func (b *builder) newFS(what, kind, source string, data []string, attr uint64) reg {
	im := b.image
	fs, mount := im.reg(), im.reg()
	im.do(what, sysFsopen, im.str(kind).arg(), imm(unix.FSOPEN_CLOEXEC)).into(fs)
	if source != "" {
		im.do(what, sysFsconfig, fs.arg(), imm(unix.FSCONFIG_SET_STRING), im.str("source").arg(), im.str(source).arg(), imm(0))
	}
	for _, opt := range data {
		key, value, ok := strings.Cut(opt, "=")
		if ok {
			im.do(what+" option "+opt, sysFsconfig, fs.arg(), imm(unix.FSCONFIG_SET_STRING), im.str(key).arg(), im.str(value).arg(), imm(0))
		} else {
			im.do(what+" option "+opt, sysFsconfig, fs.arg(), imm(unix.FSCONFIG_SET_FLAG), im.str(key).arg(), imm(0), imm(0))
		}
	}
	im.do(what, sysFsconfig, fs.arg(), imm(unix.FSCONFIG_CMD_CREATE), imm(0), imm(0), imm(0))
	im.do(what, sysFsmount, fs.arg(), imm(unix.FSMOUNT_CLOEXEC), imm(attr)).into(mount)
	im.close(fs)
	return mount
}

// attach puts a mount on its point; both registers are given back.
func (b *builder) attach(what string, mount, point reg) {
	im := b.image
	empty := im.str("")
	im.do(what, sysMoveMount, mount.arg(), empty.arg(), point.arg(), empty.arg(),
		imm(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
	im.close(mount)
	im.close(point)
}

// tree makes a copy of a mount or of a part of it, mounted nowhere yet.
func (b *builder) tree(what, source string, recursive bool) reg {
	im := b.image
	mount := im.reg()
	flags := uint64(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	im.do(what, sysOpenTree, cwd(), im.str(source).arg(), imm(flags)).into(mount)
	return mount
}

// setattr changes attributes of the mount in a register.
func (b *builder) setattr(what string, mount reg, set, clear, propagation uint64, recursive bool) {
	if set|clear|propagation == 0 {
		return
	}
	im := b.image
	attr, size := im.mountAttr(set, clear, propagation)
	flags := uint64(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	im.do(what, sysMountSetattr, mount.arg(), im.str("").arg(), imm(flags), attr.arg(), size)
}

// mount makes one of the spec's mounts.
func (b *builder) mount(m specs.Mount) error {
	o := parseOptions(m.Options)
	what := fmt.Sprintf("mount %s on %s", m.Source, m.Destination)
	if o.bind || m.Type == "bind" {
		return b.bind(what, m, o)
	}
	if m.Type == "cgroup" {
		return b.cgroups(what, m, o)
	}
	late := o.set&unix.MOUNT_ATTR_RDONLY != 0 && (m.Type == "tmpfs" || filepath.Clean(m.Destination) == "/dev")
	if late {
		// Mount points are still to be made in it.
		o.set &^= unix.MOUNT_ATTR_RDONLY
		b.lateReadOnly = append(b.lateReadOnly, m.Destination)
	}
	mount := b.newFS(what, m.Type, m.Source, o.data, o.set)
	b.setattr(what, mount, 0, 0, o.propagation, o.recursive)
	b.attach(what, mount, b.point(m.Destination, true, m.Type == "proc" || m.Type == "sysfs"))
	return nil
}

func (b *builder) bind(what string, m specs.Mount, o mountOptions) error {
	if len(o.data) > 0 {
		return fmt.Errorf("%s: a bind mount has no options %q", what, o.data)
	}
	dir, err := b.host.IsDir(m.Source)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	mount := b.tree(what, m.Source, o.rbind)
	b.setattr(what, mount, o.set, o.clear, 0, false)
	b.setattr(what, mount, o.recSet, o.recClr, 0, true)
	b.setattr(what, mount, 0, 0, o.propagation, o.recursive)
	b.attach(what, mount, b.point(m.Destination, dir, false))
	return nil
}

// cgroups shows the container its cgroups: under v2 the tree as its namespace
// has it, under v1 its own group of each hierarchy in a tmpfs.
func (b *builder) cgroups(what string, m specs.Mount, o mountOptions) error {
	if b.host.Groups.Unified() {
		mount := b.newFS(what, "cgroup2", "cgroup", nil, o.set)
		b.attach(what, mount, b.point(m.Destination, true, false))
		return nil
	}
	const attr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	top := b.newFS(what, "tmpfs", "tmpfs", []string{"mode=755"}, attr)
	b.attach(what, top, b.point(m.Destination, true, false))
	links := map[string]string{}
	var bases []string
	for name, point := range b.host.Groups.Mounts {
		base := filepath.Base(point)
		if name != "" && name != base && !strings.HasPrefix(name, "name=") {
			links[name] = base
		}
		if name != "" && !slices.Contains(bases, base) {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	for _, base := range bases {
		source := path.Join(hierarchyRoot, base, b.spec.Linux.CgroupsPath)
		group := b.tree(what, source, false)
		b.setattr(what, group, attr|o.set&unix.MOUNT_ATTR_RDONLY, 0, 0, false)
		b.attach(what, group, b.point(path.Join(m.Destination, base), true, false))
	}
	for name, base := range links {
		b.symlink(base, path.Join(m.Destination, name))
	}
	if o.set&unix.MOUNT_ATTR_RDONLY != 0 {
		b.lateReadOnly = append(b.lateReadOnly, m.Destination)
	}
	return nil
}

// symlink makes a symlink in the container; one that is there stays.
func (b *builder) symlink(target, at string) {
	im := b.image
	what := "symlink " + at
	dir := b.point(path.Dir(at), true, false)
	im.do(what, sysSymlinkat, im.str(target).arg(), dir.arg(), im.str(path.Base(at)).arg()).unless(uint16(unix.EEXIST))
	im.close(dir)
}
