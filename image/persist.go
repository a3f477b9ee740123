package image

import (
	"context"
	"log/slog"
	"slices"

	"keelson.dev/keelson/image/ledger"
)

// save writes the state as it is now where a restart of the process finds it.
// Turns make the last writer the one with the newest state; mu is not held while
// writing.
func (s *Store) save() error {
	unlock, err := s.work.ledger.lock(context.Background(), "boot")
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	now := s.state.Clone()
	s.mu.Unlock()
	return s.file.Save(now)
}

// syncOnce makes the state of its beginning durable: everything of the filesystem
// to disk, then the ledger that lists it, less what was removed meanwhile.
func (s *Store) syncOnce() error {
	s.mu.Lock()
	synced := s.state.Clone()
	s.mu.Unlock()
	if err := s.snaps.Sync(); err != nil {
		return err
	}
	atSynced.Reach()
	return s.saveDurable(func(*ledger.State) *ledger.State { return synced })
}

// forgetDurably takes what is no longer in the state out of the durable ledger,
// before its files go.
func (s *Store) forgetDurably() error {
	return s.saveDurable(func(durable *ledger.State) *ledger.State { return durable.Clone() })
}

func (s *Store) saveDurable(next func(durable *ledger.State) *ledger.State) error {
	unlock, err := s.work.ledger.lock(context.Background(), "durable")
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	out := next(s.durable)
	out.Intersect(s.state)
	out.Doomed = slices.Clone(s.state.Doomed)
	s.mu.Unlock()
	if err := s.file.SaveDurable(out); err != nil {
		return err
	}
	s.mu.Lock()
	s.durable = out
	s.mu.Unlock()
	return nil
}

// syncer runs syncOnce in the background, as often as asked for but never twice
// at once.
type syncer struct {
	wake chan struct{}
	stop chan struct{}
	done chan error
}

func newSyncer(once func() error, log *slog.Logger) *syncer {
	y := &syncer{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan error, 1)}
	go y.run(once, log) // stopped and waited for by close
	return y
}

func (y *syncer) run(once func() error, log *slog.Logger) {
	var err error
	for {
		select {
		case <-y.wake:
			if err = once(); err != nil {
				log.Error("images not synced to disk; a power cut would lose the latest", "err", err)
			}
		case <-y.stop:
			select {
			case <-y.wake:
				err = once()
			default:
			}
			y.done <- err
			return
		}
	}
}

func (y *syncer) want() {
	select {
	case y.wake <- struct{}{}:
	default:
	}
}

func (y *syncer) close() error {
	close(y.stop)
	return <-y.done
}
