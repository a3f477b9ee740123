package keeper

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/failpoint"
)

// Names in the keeper's directory.
const (
	SocketName  = "keeper.sock"
	LockName    = "keeper.lock"
	LogName     = "keeper.log"
	JournalName = "keeper.journal"
)

// Descriptors that a keeper inherits.
const (
	ListenFD = 3
	LockFD   = 4
)

// ErrAlive says that a keeper holds the directory's lock.
var ErrAlive = errors.New("a keeper is alive")

// Spawn starts the keeper program for dir (absolute; made 0700 if missing) in
// a session of its own and returns when it can be dialled. The program runs
// from a sealed copy in memory: a container that reaches it through
// /proc/<pid>/exe cannot change it (CVE-2019-5736), and the file may be
// replaced at any time. The caller reaps the process (cmd.Wait) while it is
// its parent.
func Spawn(program, dir string) (*exec.Cmd, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keeper directory: %w", err)
	}
	lock, err := takeLock(filepath.Join(dir, LockName))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	listener, err := listen(dir)
	if err != nil {
		return nil, fmt.Errorf("keeper socket in %s: %w", dir, err)
	}
	defer listener.Close()
	atListening.Reach()
	sealed, err := SealedCopy(program)
	if err != nil {
		return nil, fmt.Errorf("load keeper %s: %w", program, err)
	}
	defer sealed.Close()
	logFile, err := openLog(filepath.Join(dir, LogName))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd := &exec.Cmd{
		Path:        ExecPath(sealed),
		Args:        Args(dir, BuildOf(program)),
		Dir:         "/",
		Env:         environ(),
		Stderr:      logFile,
		ExtraFiles:  []*os.File{listener, lock},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start keeper %s: %w", program, err)
	}
	atSpawned.Reach()
	return cmd, nil
}

// Find is the pid of the keeper whose directory is dir, 0 if there is none. It
// goes by the command line, so that it finds one that does not answer too.
func Find(dir string) int {
	want := "keelson-keeper\x00--dir\x00" + dir + "\x00"
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(text), want) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			return pid
		}
	}
	return 0
}

func takeLock(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keeper lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("keeper lock %s: %w", path, ErrAlive)
		}
		return nil, fmt.Errorf("keeper lock %s: %w", path, err)
	}
	return lock, nil
}

// listen makes the socket, 0600, in place of one that a dead keeper left. The
// caller holds the lock, so nobody else does the same.
func listen(dir string) (*os.File, error) {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(d)
	if err := unix.Unlinkat(d, SocketName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", d, SocketName)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	// The directory is 0700, so nobody got in before this.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

// maxLog is the size in bytes at which a keeper's own log starts anew.
const maxLog = 1 << 20

func openLog(path string) (*os.File, error) {
	flags := os.O_WRONLY | os.O_APPEND | os.O_CREATE | unix.O_CLOEXEC
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keeper log: %w", err)
	}
	return f, nil
}

// Args is a keeper's command line.
func Args(dir, build string) []string {
	return []string{"keelson-keeper", "--dir", dir, "--build", build}
}

// BuildOf tells one build of the program from another: the name of its file.
// Whoever installs a changed keeper gives it another name, such as one with
// the hash of its content.
func BuildOf(program string) string { return filepath.Base(program) }

// ExecPath is where a child of this process finds an open program. It goes by our own descriptors: among the child's,
// what os/exec arranges for it may have taken the number by then. A child in a user namespace of its own may not look at ours.
func ExecPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// SealedCopy is a copy of program in memory that nobody can change, ready to
// be executed by its descriptor.
func SealedCopy(program string) (*os.File, error) {
	src, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	const mfdExec = 0x10 // since 6.3; older kernels make every memfd executable
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("keelson-keeper", flags|mfdExec)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("keelson-keeper", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "keelson-keeper")
	if _, err := io.Copy(mem, src); err != nil {
		mem.Close()
		return nil, err
	}
	if err := mem.Chmod(0o511); err != nil {
		mem.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		mem.Close()
		return nil, fmt.Errorf("seal: %w", err)
	}
	return mem, nil
}

// environ is the keeper's environment: nothing of ours but where systemd's bus
// is, if that is not the usual place.
func environ() []string {
	env := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOTRACEBACK=single"}, failpoint.Environ()...)
	const bus = "DBUS_SYSTEM_BUS_ADDRESS"
	if at := os.Getenv(bus); at != "" {
		env = append(env, bus+"="+at)
	}
	return env
}
