package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/logfile"
)

// box is one container as the keeper knows it. It belongs to the loop, but for
// the fields set before it is first handed there.
//
//	starting ──> running ──> ending ──> ended ──> (forgotten)
//	    └── start failed: gone
type box struct {
	run       keeper.Run
	cgroup    string // path below the cgroup root; "" if the spec names none
	sharedPID bool   // its end does not end its other processes
	hooked    bool   // its spec has hooks for its end
	phase     phase
	launched  chan struct{} // closed when it is no longer starting

	pid       int
	ticks     uint64
	startedAt time.Time
	child     bool // we are its parent and reap it

	pidfd    *os.File
	pidWatch *watch
	console  *os.File // terminal master
	stdin    *os.File // keeps the stdin FIFO open between writers
	log      *logfile.Writer
	streams  []*flow
	tty      *ttyFlow
	attached []*attachment
	oom      *oomWatch
	exit     *keeper.Exit
}

type phase int

const (
	starting phase = iota
	running
	ending
	ended
)

// flow is a stream with its place in the loop.
type flow struct {
	stream
	file  *os.File
	watch *watch
	queue bool // it is in the loop's ready list
}

// initRecord is init.json: which process a container became, written before
// its program may run.
type initRecord struct {
	keeper.Run
	Pid        int       `json:"pid"`
	StartTicks uint64    `json:"ticks"`
	StartedAt  time.Time `json:"startedAt"`
}

// openFIFOs opens our side of the container's output.
func (b *box) openFIFOs() error {
	for _, name := range []logfile.Stream{logfile.Stdout, logfile.Stderr} {
		path := filepath.Join(b.run.Dir, string(name))
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		// A blocking-mode File, so that Go's poller leaves it to our loop.
		b.streams = append(b.streams, &flow{stream: stream{name: name, fd: fd}, file: os.NewFile(uintptr(fd), path)})
	}
	if b.run.Stdin {
		path := filepath.Join(b.run.Dir, bundle.StdinName)
		// Read-write does not wait for a reader.
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		b.stdin = f
	}
	return nil
}

// childStdio opens the container's side of its output: for reading and
// writing, so that it never meets a pipe without a reader; and of its input.
func (b *box) childStdio() (io Stdio, err error) {
	open := func(name string, flags int) *os.File {
		if err != nil {
			return nil
		}
		var fd int
		path := filepath.Join(b.run.Dir, name)
		if fd, err = unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err != nil {
			err = &os.PathError{Op: "open", Path: path, Err: err}
			return nil
		}
		return os.NewFile(uintptr(fd), path)
	}
	io.Out = open(bundle.StdoutName, unix.O_RDWR)
	io.Err = open(bundle.StderrName, unix.O_RDWR)
	if b.run.Stdin {
		io.In = open(bundle.StdinName, unix.O_RDONLY) // b.stdin is its writer: no wait
	}
	if err != nil {
		io.close()
	}
	return io, err
}

func (s Stdio) close() {
	for _, f := range []*os.File{s.In, s.Out, s.Err, s.Console} {
		if f != nil {
			f.Close()
		}
	}
}

// openLog opens the container's log, if it keeps one.
func (b *box) openLog() error {
	if b.run.LogPath == "" {
		return nil
	}
	w, err := logfile.OpenWriter(b.run.LogPath)
	if err != nil {
		return err
	}
	b.log = w
	return nil
}

// readSpec takes from the bundle what the keeper itself must know.
func (b *box) readSpec() (*specs.Spec, error) {
	spec, err := bundle.ReadSpec(b.run.Dir)
	if err != nil {
		return nil, err
	}
	if spec.Linux == nil {
		return nil, fmt.Errorf("container %s: spec without a linux part", b.run.ID)
	}
	b.cgroup = spec.Linux.CgroupsPath
	b.hooked = spec.Hooks != nil && len(spec.Hooks.Poststop) > 0
	b.sharedPID = true
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == "pid" && ns.Path == "" {
			b.sharedPID = false
		}
	}
	return spec, nil
}

// own names the process: its pidfd, and the start time that tells it from a
// later one with the same number.
func (b *box) own(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	b.pidfd = os.NewFile(uintptr(fd), fmt.Sprintf("pidfd %d", pid))
	b.pid, b.child = pid, true
	b.startedAt = time.Now()
	if b.ticks, err = keeper.StartTicks(pid); err != nil {
		return err
	}
	atRunOwned.Reach()
	return nil
}

func (b *box) recordInit() error {
	rec := initRecord{Run: b.run, Pid: b.pid, StartTicks: b.ticks, StartedAt: b.startedAt}
	return bundle.WriteJSON(filepath.Join(b.run.Dir, bundle.InitName), rec)
}

func (b *box) running() keeper.Running {
	return keeper.Running{ID: b.run.ID, Pid: b.pid, StartTicks: b.ticks, StartedAt: b.startedAt, Exit: b.exit}
}

// handles are the files that a daemon keeps beside ours.
func (b *box) handles() []*os.File {
	var files []*os.File
	if b.pidfd != nil {
		files = append(files, b.pidfd)
	}
	if b.console != nil {
		files = append(files, b.console)
	}
	return files
}

// release closes everything; the loop has let go of it before.
func (b *box) release() {
	for _, f := range b.streams {
		f.file.Close()
	}
	b.streams = nil
	for _, f := range []*os.File{b.pidfd, b.console, b.stdin} {
		if f != nil {
			f.Close()
		}
	}
	b.pidfd, b.console, b.stdin = nil, nil, nil
	if b.log != nil {
		b.log.Close()
		b.log = nil
	}
}

var errEnded = errors.New("container has ended")
