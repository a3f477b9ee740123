package container

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
)

// rebuild is the record of a container whose own is lost or damaged, made from what is beside it. ok is false if
// nothing of the container runs: then it is not worth a record. Whose container it is only the lost record said.
func (m *Manager) rebuild(dir string) (r record, ok bool) {
	var init keeper.Adopt
	var spec specs.Spec
	if bundle.ReadJSON(filepath.Join(dir, bundle.InitName), &init) != nil || init.ID != filepath.Base(dir) ||
		bundle.ReadJSON(filepath.Join(dir, bundle.SpecName), &spec) != nil || spec.Linux == nil {
		return r, false
	}
	pidfd, alive := pidfdOf(init.Pid, init.StartTicks)
	if !alive {
		return r, false
	}
	pidfd.Close()
	r = m.newRecord(Config{ID: init.ID, Spec: &spec, LogPath: init.LogPath, TTY: init.TTY, Stdin: init.Stdin})
	r.Phase, r.Pid, r.StartTicks = phaseRunning, init.Pid, init.StartTicks
	r.CreatedAt, r.StartedAt = init.StartedAt, init.StartedAt
	return r, true
}

// endStray ends what the keeper has and no record names: its directory is gone, and with it its output and all that
// could be said of it.
func (m *Manager) endStray(ctx context.Context, k keeper.Running) error {
	ctx, cancel := context.WithTimeout(ctx, clearPatience)
	defer cancel()
	if pidfd, alive := pidfdOf(k.Pid, k.StartTicks); alive {
		err := onFD(pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
		pidfd.Close()
		if err != nil && err != unix.ESRCH {
			return fmt.Errorf("kill process %d: %w", k.Pid, err)
		}
	}
	for {
		err := m.link.ask(ctx, keeper.OpForget, keeper.Target{ID: k.ID}, nil)
		if keeper.KindOf(err) != keeper.KindBusy {
			return err
		}
		select { // the keeper has not heard of the end yet
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}
