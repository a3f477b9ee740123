package launcher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/engine/native"
	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/keeper/server"
)

// Engine runs programs that the daemon compiled, and leaves what has none to
// another engine. It is a server.Engine.
type Engine struct {
	launcher Launcher
	other    server.Engine
}

// New makes the engine; other starts the containers that it does not.
func New(other server.Engine) *Engine { return &Engine{other: other} }

// Start runs the program in the container's directory.
func (e *Engine) Start(s server.Start, created func(pid int) error) error {
	program, err := openImage(filepath.Join(s.Dir, bundle.ProgramName))
	if errors.Is(err, os.ErrNotExist) {
		return e.other.Start(s, created)
	}
	if err != nil {
		return err
	}
	defer program.close()
	_, err = e.run(program, s.Stdio, nil, created)
	return err
}

// Exec runs the program at x.Process, if it is one.
func (e *Engine) Exec(x server.Exec) (int, error) {
	program, err := openImage(x.Process)
	if errors.Is(err, errNoImage) {
		return e.other.Exec(x)
	}
	if err != nil {
		return 0, err
	}
	defer program.close()
	return e.run(program, x.Stdio, x.Target, func(int) error { return nil })
}

// Owns says that pid is the launcher or the other engine's.
func (e *Engine) Owns(pid int) bool { return pid == e.launcher.Pid() || e.other.Owns(pid) }

// Seccomp is the other engine's.
func (e *Engine) Seccomp(from, to string) error { return e.other.Seccomp(from, to) }

// run launches a process, has it recorded, lets it go and waits until its
// program was executed.
func (e *Engine) run(p *program, io server.Stdio, target *os.File, created func(pid int) error) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("status socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "status"), os.NewFile(uintptr(pair[1]), "status")
	defer ours.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		theirs.Close()
		return 0, err
	}
	defer null.Close()
	pid, pidfd, err := e.launcher.Launch(p.cloneFlags, p.length, Files{
		Program: p.file, PidNS: p.pidNS, Cgroup: p.cgroup, Status: theirs,
		In: or(io.In, null), Out: or(io.Out, null), Err: or(io.Err, null), Console: io.Console, Target: target,
	})
	theirs.Close()
	if err != nil {
		return 0, err
	}
	defer pidfd.Close()
	if err = created(pid); err == nil {
		_, err = unix.Write(pair[0], []byte{'g'})
	}
	if failure := p.outcome(pair[0]); failure != nil {
		err = failure // the cause of whatever else went wrong
	}
	runtime.KeepAlive(ours)
	if err != nil {
		fd := int(pidfd.Fd())
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		_, _ = keeper.Wait(fd)
		return 0, err
	}
	return pid, nil
}

func or(f, null *os.File) *os.File {
	if f == nil {
		return null
	}
	return f
}

// program is an image with what its header names.
type program struct {
	file          *os.File
	length        int
	cloneFlags    uint64
	pidNS, cgroup *os.File
}

var errNoImage = errors.New("not an image of the native engine")

func openImage(path string) (*program, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := &program{file: f}
	if err := p.read(); err != nil {
		p.close()
		return nil, fmt.Errorf("image %s: %w", path, err)
	}
	return p, nil
}

func (p *program) read() error {
	var h [64]byte
	if n, err := p.file.ReadAt(h[:], 0); n < len(h) || string(h[:8]) != native.Magic {
		return errors.Join(errNoImage, err)
	}
	le := binary.LittleEndian
	p.length, p.cloneFlags = int(le.Uint64(h[8:])), le.Uint64(h[32:])
	var err error
	if p.pidNS, err = p.openNamed(le.Uint64(h[40:]), 0); err != nil {
		return err
	}
	p.cgroup, err = p.openNamed(le.Uint64(h[48:]), unix.O_PATH|unix.O_DIRECTORY)
	return err
}

func (p *program) openNamed(at uint64, flags int) (*os.File, error) {
	if at == 0 {
		return nil, nil
	}
	return os.OpenFile(p.text(at), os.O_RDONLY|flags, 0)
}

// text is the string at an address of the image.
func (p *program) text(at uint64) string {
	if at < native.Base {
		return ""
	}
	buf := make([]byte, 4096)
	n, _ := p.file.ReadAt(buf, int64(at-native.Base))
	text, _, _ := strings.Cut(string(buf[:n]), "\x00")
	return text
}

// outcome waits until the program was executed (nil), or says what failed.
func (p *program) outcome(sock int) error {
	var f [16]byte
	for {
		n, err := unix.Read(sock, f[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECONNRESET) {
			// It ended before it took our byte: the kernel says so once, and only then what it had to say (unix_release_sock).
			continue
		}
		if err != nil || n != len(f) {
			return nil // closed by execve, or by an end that will be seen
		}
		break
	}
	le := binary.LittleEndian
	what := p.text(le.Uint64(f[:]))
	message := what
	if errno := le.Uint32(f[8:]); errno != 0 {
		message = fmt.Sprintf("%s: %v", what, unix.Errno(errno))
	}
	return &keeper.Failure{Kind: keeper.KindStart, Message: message}
}

func (p *program) close() {
	for _, f := range []*os.File{p.file, p.pidNS, p.cgroup} {
		if f != nil {
			f.Close()
		}
	}
}
