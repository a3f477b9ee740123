package native

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/cgroup"
)

const hierarchyRoot = cgroup.Root

// Host is what the machine has to say. It is a value; IsDir and Home look.
type Host struct {
	Groups    cgroup.Hierarchy
	LastCap   uint
	Permitted uint64                          // capabilities of the keeper
	IsDir     func(path string) (bool, error) // of a mount's source
	Home      func(uid uint32) string         // of a user of the container
}

// Filter is a compiled seccomp filter: struct sock_filter after another, and
// the flags to load it with.
type Filter struct {
	Program []byte
	Flags   uint64
}

// ErrUnsupported says that a spec asks for what only libcontainer does.
var ErrUnsupported = errors.New("not supported by the native engine")

// builder is a program in the making.
type builder struct {
	image  *image
	host   Host
	spec   *specs.Spec
	filter Filter
	root   reg
	stdio  []reg // streams that become the user's

	lateReadOnly []string // mounts to be made read-only at the end
}

// Compile makes the program that starts a container's first process. stdin
// says that it has one (else its own is /dev/null). ErrUnsupported leaves the
// container to libcontainer; any other error is the spec's fault.
func Compile(spec *specs.Spec, filter Filter, stdin bool, host Host) ([]byte, error) {
	if err := Supported(spec); err != nil {
		return nil, err
	}
	b := newBuilder(host, filter, stdin)
	b.spec = spec
	h, err := b.namespaces()
	if err != nil {
		return nil, err
	}
	b.hostSide(spec.Process)
	if err := b.rootfs(); err != nil {
		return nil, err
	}
	if spec.Process.Terminal {
		b.terminal(spec.Process.User.UID, spec.Process.ConsoleSize, true)
	}
	b.protect()
	if err := b.become(spec.Process); err != nil {
		return nil, err
	}
	return b.image.render(h)
}

func newBuilder(host Host, filter Filter, stdin bool) *builder {
	b := &builder{image: newImage(), host: host, filter: filter, stdio: []reg{RegStdout, RegStderr}}
	if stdin {
		b.stdio = append(b.stdio, RegStdin)
	}
	im := b.image
	im.do("setsid", sysSetsid)
	// A session keyring of its own; a kernel without keys is no reason to stop.
	const joinSessionKeyring = 1
	im.do("session keyring", sysKeyctl, imm(joinSessionKeyring), imm(0)).ignore()
	return b
}

// hostSide sets what is written to files of the host's /proc, which nobody in
// the container can put another in place of (CVE-2019-16884). The AppArmor
// profile counts from the exec on.
func (b *builder) hostSide(p *specs.Process) {
	if p.OOMScoreAdj != nil {
		b.image.writeFile("set oom_score_adj", "/proc/self/oom_score_adj", strconv.Itoa(*p.OOMScoreAdj))
	}
	if name := p.ApparmorProfile; name != "" {
		b.image.writeFile("set AppArmor profile "+name, "/proc/self/attr/apparmor/exec", "exec "+name)
	}
}

// cloneFlags are the namespaces that are made with the process.
var cloneFlags = map[specs.LinuxNamespaceType]int{
	specs.PIDNamespace: unix.CLONE_NEWPID, specs.NetworkNamespace: unix.CLONE_NEWNET, specs.IPCNamespace: unix.CLONE_NEWIPC,
	specs.UTSNamespace: unix.CLONE_NEWUTS, specs.MountNamespace: unix.CLONE_NEWNS, specs.CgroupNamespace: unix.CLONE_NEWCGROUP,
}

// namespaces joins cgroups and namespaces. Those that are new come with the
// clone; the cgroup one is made after the cgroups were joined, which it is to
// show as its root.
func (b *builder) namespaces() (header, error) {
	h := b.join(b.spec.Linux.CgroupsPath)
	im := b.image
	for _, ns := range b.spec.Linux.Namespaces {
		flag := cloneFlags[ns.Type]
		switch {
		case ns.Type == specs.CgroupNamespace:
			im.do("make cgroup namespace", sysUnshare, imm(flag))
		case ns.Path == "":
			h.cloneFlags |= uint64(flag)
		case ns.Type == specs.PIDNamespace:
			h.pidPath = ns.Path
		default:
			im.setns(ns.Path, flag)
		}
	}
	if name := b.spec.Hostname; name != "" {
		own := slices.ContainsFunc(b.spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UTSNamespace })
		if !own {
			return h, fmt.Errorf("the host name %q cannot be set without a UTS namespace", name)
		}
		im.do("set host name", sysSethostname, im.str(name).arg(), imm(len(name)))
	}
	return h, nil
}

// join puts the process into its cgroups: under v2 it is born there, under v1
// it writes itself, as a single thread, into each group's tasks, which spares
// the kernel's wait for a grace period that a write by others costs. The cpu
// controller comes last, so that less of this work counts against its quota.
func (b *builder) join(groupPath string) header {
	var h header
	unified, ok := b.host.Groups.Mounts[""]
	if ok {
		h.cgroupDir = path.Join(unified, groupPath)
	}
	var points []string
	for _, point := range b.host.Groups.Mounts {
		if point != unified && !slices.Contains(points, point) {
			points = append(points, point)
		}
	}
	cpu := b.host.Groups.Mounts["cpu"]
	slices.SortFunc(points, func(a, b string) int {
		if (a == cpu) != (b == cpu) {
			return map[bool]int{true: 1, false: -1}[a == cpu]
		}
		return strings.Compare(a, b)
	})
	for _, point := range points {
		dir := path.Join(point, groupPath)
		b.image.writeFile("join cgroup "+dir, path.Join(dir, "tasks"), "0")
	}
	return h
}

// rootfs makes the container's file tree and makes it the process's root.
func (b *builder) rootfs() error {
	im := b.image
	spec := b.spec
	rootPath := spec.Root.Path
	// Nothing that is mounted here reaches the host; what the host mounts later
	// reaches us only below what is shared on purpose.
	flags := uint64(unix.MS_SLAVE | unix.MS_REC)
	if p := propagationFlags(spec.Linux.RootfsPropagation); p != 0 {
		flags = p
	}
	im.do("set propagation of mounts", sysMount, im.str("").arg(), im.str("/").arg(), imm(0), imm(flags), imm(0))
	if flags&unix.MS_SHARED != 0 {
		b.privateParent(rootPath)
	}
	self := b.tree("root "+rootPath, rootPath, true)
	b.setattr("root "+rootPath, self, 0, 0, unix.MS_PRIVATE, false)
	point := im.reg()
	im.do("root "+rootPath, sysOpenat, cwd(), im.str(rootPath).arg(), imm(pathFlags|unix.O_DIRECTORY)).into(point)
	// pivot_root will not have a parent mount that is shared.
	im.do("root "+rootPath, sysMoveMount, self.arg(), im.str("").arg(), point.arg(), im.str("").arg(),
		imm(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
	im.close(point)
	b.root = self
	for _, m := range spec.Mounts {
		if err := b.mount(m); err != nil {
			return err
		}
	}
	if err := b.devices(); err != nil {
		return err
	}
	dir := spec.Process.Cwd
	im.close(b.pathInRoot("working directory "+dir, dir, true, false)) // makes it if it is missing
	b.pivot()
	if p := propagationFlags(spec.Linux.RootfsPropagation); p&(unix.MS_SHARED|unix.MS_UNBINDABLE) != 0 {
		im.do("set propagation of the root", sysMount, im.str("").arg(), im.str("/").arg(), imm(0), imm(p), imm(0))
	}
	return nil
}

// privateParent makes the mount that rootPath is on private. The root is
// mounted there for a moment, which must not show on the host, and pivot_root
// will not have it otherwise. Which of the path's parts is a mount is found by
// trying.
func (b *builder) privateParent(rootPath string) {
	im := b.image
	done := im.label()
	for dir := filepath.Clean(rootPath); ; dir = filepath.Dir(dir) {
		i := im.do("make mount of the root private", sysMount, im.str("").arg(), im.str(dir).arg(), imm(0), imm(unix.MS_PRIVATE), imm(0))
		if dir == "/" {
			break
		}
		i.unless(uint16(unix.EINVAL)).then(done)
	}
	im.place(done)
}

func propagationFlags(name string) uint64 {
	if p := propagationOf[name]; p != 0 {
		return p
	}
	if name != "" {
		if p := propagationOf[name[1:]]; p != 0 && name[0] == 'r' {
			return p | unix.MS_REC
		}
	}
	return 0
}

// pivot makes the new tree the root and lets the old one go. Both roots are
// mounted on each other for a moment, so no directory is needed for the old.
func (b *builder) pivot() {
	im := b.image
	dot, empty := im.str("."), im.str("")
	old := im.reg()
	im.do("pivot root", sysOpenat, cwd(), im.str("/").arg(), imm(pathFlags|unix.O_DIRECTORY)).into(old)
	im.do("pivot root", sysFchdir, b.root.arg())
	im.do("pivot root", sysPivotRoot, dot.arg(), dot.arg())
	im.do("leave old root", sysFchdir, old.arg())
	im.do("leave old root", sysMount, empty.arg(), dot.arg(), imm(0), imm(unix.MS_SLAVE|unix.MS_REC), imm(0))
	im.do("leave old root", sysUmount2, dot.arg(), imm(unix.MNT_DETACH))
	im.do("enter new root", sysChdir, im.str("/").arg())
	im.close(old)
	im.close(b.root)
}

// protect makes read-only and hides what the spec says. It runs in the
// container's root, in which nobody else is yet.
func (b *builder) protect() {
	im := b.image
	readOnly, size := im.mountAttr(unix.MOUNT_ATTR_RDONLY, 0, 0)
	for _, dest := range b.lateReadOnly {
		im.do("make "+dest+" read-only", sysMountSetattr, cwd(), im.str(dest).arg(), imm(0), readOnly.arg(), size)
	}
	if b.spec.Root.Readonly {
		im.do("make root read-only", sysMountSetattr, cwd(), im.str("/").arg(), imm(0), readOnly.arg(), size)
	}
	for _, name := range b.spec.Linux.ReadonlyPaths {
		b.readOnlyPath(name)
	}
	for _, name := range b.spec.Linux.MaskedPaths {
		b.maskPath(name)
	}
}

func (b *builder) readOnlyPath(name string) {
	im := b.image
	what := "make " + name + " read-only"
	mount, none := im.reg(), im.label()
	im.do(what, sysOpenTree, cwd(), im.str(name).arg(), imm(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)).
		into(mount).onError(none)
	b.setattr(what, mount, unix.MOUNT_ATTR_RDONLY, 0, 0, true)
	im.do(what, sysMoveMount, mount.arg(), im.str("").arg(), cwd(), im.str(name).arg(), imm(unix.MOVE_MOUNT_F_EMPTY_PATH))
	im.close(mount)
	im.place(none)
}

// maskPath hides a file under /dev/null, a directory under an empty one.
func (b *builder) maskPath(name string) {
	im := b.image
	what := "hide " + name
	point, isFile, done := im.reg(), im.label(), im.label()
	im.do(what, sysOpenat, cwd(), im.str(name).arg(), imm(pathFlags)).into(point).onError(done)
	dir := im.reg()
	im.do(what, sysOpenat, cwd(), im.str(name).arg(), imm(pathFlags|unix.O_DIRECTORY)).into(dir).onError(isFile)
	im.do("close", sysClose, dir.arg()).ignore()
	im.release(dir)
	empty := b.newFS(what, "tmpfs", "tmpfs", []string{"ro", "nr_blocks=1", "nr_inodes=1"}, unix.MOUNT_ATTR_RDONLY)
	im.do(what, sysMoveMount, empty.arg(), im.str("").arg(), point.arg(), im.str("").arg(),
		imm(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
	im.do("close", sysClose, empty.arg()).ignore()
	im.do("close", sysClose, point.arg()).ignore().then(done).onError(done)
	im.place(isFile)
	null := b.tree(what, "/dev/null", false)
	im.do(what, sysMoveMount, null.arg(), im.str("").arg(), point.arg(), im.str("").arg(),
		imm(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
	im.close(null)
	im.do("close", sysClose, point.arg()).ignore()
	im.release(empty)
	im.release(point)
	im.place(done)
}

// Entry is what must be known of a container to start a further process in it.
type Entry struct {
	Cgroup string // path below the cgroup root
	Filter Filter
	Stdin  bool
}

// CompileExec makes the program that starts a further process in a container
// whose first process is RegTarget.
func CompileExec(p *specs.Process, e Entry, host Host) ([]byte, error) {
	if err := supportedProcess(p); err != nil {
		return nil, err
	}
	b := newBuilder(host, e.Filter, e.Stdin)
	h := b.join(filepath.Clean("/" + e.Cgroup))
	im := b.image
	b.hostSide(p)
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	im.do("join the container's namespaces", sysSetns, RegTarget.arg(), imm(all))
	im.do("close", sysClose, RegTarget.arg()).ignore()
	if p.Terminal {
		b.terminal(p.User.UID, p.ConsoleSize, false)
	}
	if err := b.become(p); err != nil {
		return nil, err
	}
	return im.render(h)
}
