package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
)

// execRun is a further process in a container, from its start to its end. Its
// streams are between it and the daemon.
type execRun struct {
	req   keeper.Exec
	from  *session
	pid   int
	pidfd *os.File
	watch *watch
}

// handleExec starts a process. It owns files and closes them: the process has
// its own by then.
func (s *Server) handleExec(from *session, h keeper.Header, body json.RawMessage, files []*os.File) {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	req, err := decode[keeper.Exec](body)
	if err != nil {
		from.reply(h, nil, err)
		return
	}
	var dir string
	var target *os.File
	s.loop.do(func() {
		if b, ok := s.boxes[req.ID]; ok && b.phase == running {
			dir = b.run.Dir
			target, err = duplicate(b.pidfd)
		}
	})
	if err != nil {
		from.reply(h, nil, err)
		return
	}
	if dir == "" {
		from.reply(h, nil, &keeper.Failure{Kind: keeper.KindNotRunning, Message: "container " + req.ID + " is not running"})
		return
	}
	defer target.Close()
	run, err := s.startExec(req, dir, target, files)
	if err != nil {
		from.reply(h, nil, err)
		return
	}
	atExecStarted.Reach()
	run.from = from
	s.loop.do(func() {
		s.execs[run.pid] = run
		from.reply(h, keeper.Running{ID: req.ID, Pid: run.pid}, nil, run.pidfd)
		run.watch, err = s.loop.watch(int(run.pidfd.Fd()), unix.EPOLLIN, func(uint32) { s.execEnded(run) })
		if err != nil {
			s.cfg.Log.Error("watch exec", "container", req.ID, "err", err)
		}
	})
}

func (s *Server) startExec(req keeper.Exec, dir string, target *os.File, files []*os.File) (*execRun, error) {
	stdio, err := execStdio(req, files)
	if err != nil {
		return nil, err
	}
	pid, err := s.cfg.Engine.Exec(Exec{ID: req.ID, Dir: dir, Process: req.Process, Target: target, Stdio: stdio})
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd of exec %d: %w", pid, err)
	}
	return &execRun{req: req, pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

func execStdio(req keeper.Exec, files []*os.File) (Stdio, error) {
	var io Stdio
	if req.TTY {
		if len(files) != 1 {
			return io, fmt.Errorf("exec in %s: %d files for a terminal", req.ID, len(files))
		}
		io.Console = files[0]
		return io, nil
	}
	if len(files) != len(req.Stdio) {
		return io, fmt.Errorf("exec in %s: %d files for stdio %q", req.ID, len(files), req.Stdio)
	}
	for i, which := range req.Stdio {
		switch which {
		case 'i':
			io.In = files[i]
		case 'o':
			io.Out = files[i]
		case 'e':
			io.Err = files[i]
		default:
			return io, fmt.Errorf("exec in %s: stdio %q", req.ID, req.Stdio)
		}
	}
	return io, nil
}

func (s *Server) execEnded(run *execRun) {
	fd := int(run.pidfd.Fd())
	status, err := peek(fd)
	if errors.Is(err, errNotEnded) {
		return
	}
	if err != nil {
		status = waitStatus{code: unknownCode}
	}
	atExecEnded.Reach()
	run.from.send(keeper.Header{Op: keeper.OpExecExited}, keeper.ExecExited{
		ID: run.req.ID, ExecID: run.req.ExecID, Code: int32(status.code),
	})
	atExecTold.Reach()
	s.loop.drop(run.watch)
	reap(fd)
	run.pidfd.Close()
	delete(s.execs, run.pid)
	s.sweep()
}
