package native

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
)

// become turns the process, which is in its container by now, into the one
// that the spec describes. Its steps are ordered by what each still needs:
// seccomp without no_new_privs needs rights that the last capset takes.
func (b *builder) become(p *specs.Process) error {
	im := b.image
	env, err := environment(p.Env, b.host.Home(p.User.UID))
	if err != nil {
		return err
	}
	if err := b.rlimits(p.Rlimits); err != nil {
		return err
	}
	umask := uint32(0o022)
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	im.do("set umask", sysUmask, imm(umask))
	if !p.Terminal {
		for _, std := range b.stdio {
			im.do("own standard stream", sysFchown, std.arg(), imm(p.User.UID), imm(int64(-1))).ignore()
		}
		for fd, std := range []reg{RegStdin, RegStdout, RegStderr} {
			im.do("set standard stream", sysDup3, std.arg(), imm(fd), imm(0))
		}
	}
	caps := capabilities(p.Capabilities)
	b.dropBounding(caps.bounding)
	im.do("keep capabilities", sysPrctl, imm(unix.PR_SET_KEEPCAPS), imm(1), imm(0), imm(0), imm(0))
	b.user(p.User)
	if err := b.workDir(p.Cwd); err != nil {
		return err
	}
	im.do("let capabilities go", sysPrctl, imm(unix.PR_SET_KEEPCAPS), imm(0), imm(0), imm(0), imm(0))
	program := b.findProgram(p.Args, env)
	if p.NoNewPrivileges {
		im.do("set no_new_privs", sysPrctl, imm(unix.PR_SET_NO_NEW_PRIVS), imm(1), imm(0), imm(0), imm(0))
	}
	im.do("close descriptors", sysCloseRange, imm(3), imm(uint32(0xffffffff)), imm(unix.CLOSE_RANGE_CLOEXEC))
	b.waitForGo()
	if !p.NoNewPrivileges {
		// setuid cleared the effective set; the permitted one is still whole.
		b.capset(0, caps.permitted|1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SETPCAP, caps.permitted|1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SETPCAP, len(b.filter.Program) > 0)
		b.seccomp()
	}
	b.capset(caps.inheritable, caps.permitted, caps.effective, true)
	b.ambient(caps.ambient)
	if p.NoNewPrivileges {
		b.seccomp()
	}
	im.do("exec "+p.Args[0], sysExecve, program.arg(), im.list(p.Args).arg(), im.list(env).arg())
	return nil
}

// environment is what the program gets: of each name the last value, and a
// HOME.
func environment(env []string, home string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, entry := range slices.Backward(env) {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" || strings.IndexByte(entry, 0) >= 0 {
			return nil, fmt.Errorf("environment variable %.60q is not NAME=value", name)
		}
		if seen[name] || name == "HOME" && value == "" {
			continue
		}
		seen[name] = true
		out = append(out, entry)
	}
	slices.Reverse(out)
	if !seen["HOME"] {
		out = append(out, "HOME="+home)
	}
	return out, nil
}

func (b *builder) rlimits(limits []specs.POSIXRlimit) error {
	for _, r := range limits {
		which, ok := bundle.RlimitNumber(r.Type)
		if !ok {
			return fmt.Errorf("unknown rlimit %q", r.Type)
		}
		values := b.image.words(r.Soft, r.Hard)
		b.image.do("set "+r.Type, sysPrlimit, imm(0), imm(which), values.arg(), imm(0))
	}
	return nil
}

func (b *builder) user(u specs.User) {
	im := b.image
	groups := make([]byte, 0, 4*len(u.AdditionalGids))
	for _, gid := range u.AdditionalGids {
		groups = binary.LittleEndian.AppendUint32(groups, gid)
	}
	im.do("set groups", sysSetgroups, imm(len(u.AdditionalGids)), im.bytes(groups).arg())
	im.do("set group", sysSetresgid, imm(u.GID), imm(u.GID), imm(u.GID))
	im.do("set user", sysSetresuid, imm(u.UID), imm(u.UID), imm(u.UID))
}

// workDir enters the working directory. What it names may lead out, by a
// descriptor in /proc (CVE-2024-21626): getcwd tells, by a path that does not
// begin at the root.
func (b *builder) workDir(dir string) error {
	if !strings.HasPrefix(dir, "/") {
		return fmt.Errorf("working directory %q is not absolute", dir)
	}
	im := b.image
	what := "enter working directory " + dir
	im.do(what, sysChdir, im.str(dir).arg())
	buf, first := im.bytes(make([]byte, 4096)), im.reg()
	im.do(what, sysGetcwd, buf.arg(), imm(4096))
	im.do(what, opLoad8, buf.arg()).into(first)
	im.do(what+": it is outside of the container", opNeed, first.arg(), imm(int('/')), imm(int(unix.EACCES)))
	im.release(first)
	return nil
}

// findProgram finds the program as a shell would, with the user's rights. The
// register holds the path's address.
func (b *builder) findProgram(args, env []string) reg {
	im := b.image
	out := im.reg()
	name := args[0]
	access := func(path string) *insn {
		return im.do("exec: "+quote(path), sysFaccessat2, cwd(), im.str(path).arg(), imm(1 /* X_OK */), imm(unix.AT_EACCESS))
	}
	if strings.Contains(name, "/") {
		access(name)
		im.do("set", opSet, im.str(name).arg()).into(out)
		return out
	}
	done := im.label()
	for _, dir := range strings.Split(lookup(env, "PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		next := im.label()
		path := strings.TrimSuffix(dir, "/") + "/" + name
		access(path).onError(next)
		notDir := im.reg()
		// A directory is executable too.
		flags := imm(unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC)
		isFile := im.label()
		im.do("look", sysOpenat, cwd(), im.str(path).arg(), flags).into(notDir).onError(isFile)
		im.do("close", sysClose, notDir.arg()).ignore().then(next).onError(next)
		im.place(isFile)
		im.release(notDir)
		im.do("set", opSet, im.str(path).arg()).into(out).then(done)
		im.place(next)
	}
	im.do(fmt.Sprintf("exec: %s: executable file not found in $PATH", quote(name)), opFail, imm(0))
	im.place(done)
	return out
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

func lookup(env []string, name string) string {
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// waitForGo waits until the keeper has the process on record. If the keeper is
// gone instead, so is the reason to go on. A container's first process then
// sits still until the daemon, which finds it so, ends it: an end of its own
// would look like its program's.
func (b *builder) waitForGo() {
	im := b.image
	got, goes := im.reg(), im.label()
	im.do("wait for the keeper", sysRead, RegStatus.arg(), im.bytes(make([]byte, 8)).arg(), imm(1)).into(got)
	gone := im.do("the keeper is gone", opNeed, got.arg(), imm(1), imm(int(unix.EPIPE)))
	if b.spec != nil {
		gone.ignore().then(goes)
		im.do("wait for the end", sysPpoll, imm(0), imm(0), imm(0), imm(0))
	}
	im.place(goes)
	im.release(got)
}

// seccomp loads the filter. After it only execve and what precedes it here
// must be allowed.
func (b *builder) seccomp() {
	if len(b.filter.Program) == 0 {
		return
	}
	im := b.image
	const setFilter = 1 // SECCOMP_SET_MODE_FILTER
	code := im.bytes(b.filter.Program)
	prog := im.words(uint64(len(b.filter.Program)/8), uint64(code)) // struct sock_fprog
	im.do("load seccomp filter", sysSeccomp, imm(setFilter), imm(b.filter.Flags), prog.arg())
}
