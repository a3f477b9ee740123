package server

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
)

// handleUpgrade has the loop end so that Run can execute the new program. It
// owns files: the program.
func (s *Server) handleUpgrade(from *session, h keeper.Header, body json.RawMessage, files []*os.File) {
	req, err := decode[keeper.Upgrade](body)
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("upgrade: %d files where the program was to be", len(files))
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		from.reply(h, nil, err)
		return
	}
	s.loop.do(func() {
		if busy := s.busy(); busy != "" || s.next != nil {
			files[0].Close()
			from.reply(h, nil, &keeper.Failure{Kind: keeper.KindBusy, Message: "the keeper cannot be replaced now: " + busy})
			return
		}
		s.next, s.nextBuild = files[0], req.Build
		atUpgradeAccepted.Reach()
	})
}

// busy says what an upgrade would cut short.
func (s *Server) busy() string {
	if s.launches > 0 {
		return "a process is being started or ended"
	}
	if len(s.execs) > 0 {
		return fmt.Sprintf("%d execs are under way", len(s.execs))
	}
	for _, b := range s.boxes {
		if len(b.attached) > 0 {
			return "container " + b.run.ID + " is attached to"
		}
	}
	return ""
}

// become executes the program that came with an upgrade. It returns only if
// that fails. The new program finds what it inherits where the first did.
func (s *Server) become() error {
	listener, err := s.cfg.Listener.File()
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	// Both numbers are taken: ListenFD by whatever came after the first
	// listener was duplicated and closed, LockFD by the lock itself.
	if err := unix.Dup3(int(listener.Fd()), keeper.ListenFD, 0); err != nil {
		return fmt.Errorf("upgrade: pass socket: %w", err)
	}
	if _, err := unix.FcntlInt(keeper.LockFD, unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("upgrade: pass lock: %w", err)
	}
	atUpgradePassing.Reach()
	args := keeper.Args(s.cfg.Dir, s.nextBuild)
	err = unix.Exec(fmt.Sprintf("/proc/self/fd/%d", s.next.Fd()), args, os.Environ())
	return fmt.Errorf("upgrade: execute: %w", err)
}
