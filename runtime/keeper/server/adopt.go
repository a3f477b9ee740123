package server

import (
	"encoding/json"
	"fmt"
	"os"

	"keelson.dev/keelson/runtime/keeper"
)

// handleAdopt takes over a container from a keeper that was killed. It owns
// files: the pidfd and, for a terminal, its master.
func (s *Server) handleAdopt(from *session, h keeper.Header, body json.RawMessage, files []*os.File) {
	req, err := decode[keeper.Adopt](body)
	if err == nil && len(files) == 0 && !req.Exited {
		err = fmt.Errorf("adopt %s: no pidfd came with it", req.ID)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		from.reply(h, nil, err)
		return
	}
	b := &box{run: req.Run, pid: req.Pid, ticks: req.StartTicks, startedAt: req.StartedAt}
	if len(files) > 0 {
		b.pidfd = files[0]
	}
	if len(files) > 1 {
		b.console = files[1]
	}
	s.loop.do(func() {
		if have, ok := s.boxes[req.ID]; ok {
			b.release()
			from.reply(h, have.running(), nil)
			return
		}
		if err := s.takeOver(b, req.Exited); err != nil {
			s.unpump(b)
			b.release()
			from.reply(h, nil, err)
			return
		}
		atAdopted.Reach()
		from.reply(h, b.running(), nil)
	})
}

func (s *Server) takeOver(b *box, exited bool) error {
	if _, err := b.readSpec(); err != nil {
		return err
	}
	if !b.run.TTY {
		if err := b.openFIFOs(); err != nil {
			return err
		}
	}
	if err := b.openLog(); err != nil {
		return err
	}
	if exited {
		s.drain(b)
		b.release()
		return nil
	}
	b.phase = running
	b.child = true // unless waitid says otherwise
	if err := s.pumpFrom(b); err != nil {
		return err
	}
	s.boxes[b.run.ID] = b
	b.oom = &oomWatch{before: b.podKills()}
	s.watchEnd(b)
	s.watchOOM(b)
	return nil
}

// handleReaped learns from the daemon how an adopted container ended whose
// parent the daemon is. On newer kernels the pidfd tells the same.
func (s *Server) handleReaped(from *session, h keeper.Header, body json.RawMessage) {
	req, err := decode[keeper.Reaped](body)
	if err != nil {
		from.reply(h, nil, err)
		return
	}
	s.loop.do(func() {
		b, ok := s.boxes[req.ID]
		if !ok {
			from.reply(h, nil, notFound(req.ID))
			return
		}
		status := statusFromWait(req.Status)
		if req.Unknown {
			status = waitStatus{code: unknownCode}
		}
		s.end(b, status, req.Unknown)
		from.reply(h, nil, nil)
	})
}
