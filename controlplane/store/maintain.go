package store

import (
	"context"
	"path/filepath"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// calmEvery and tightEvery are how often the database is looked after with and without room.
	calmEvery  = 30 * time.Second
	tightEvery = 2 * time.Second
	// reserveAhead is kept on the disk for deletions and compaction: behind the end of the file, and of its free pages.
	reserveAhead = 16 << 20
	// From how much there is to gain on blocks are given back, and how long after the last time at the earliest: pages that are used again
	// soon should keep theirs.
	trimGain     = 64 << 20
	trimApart    = 10 * time.Minute
	tightGain    = 8 << 20
	tightApart   = 30 * time.Second
	upkeepPeriod = 20 * time.Second // limit of one round
)

// condition is what the decision to give blocks back is taken by.
type condition struct {
	allocated, used int64 // in bytes
	level           pressure
	since           time.Duration // since the last time
}

// trimDue tells whether there is enough to gain.
func trimDue(c condition) bool {
	gain := c.allocated - c.used - 2*reserveAhead
	if c.level != roomy {
		return gain >= tightGain && c.since >= tightApart
	}
	return gain >= trimGain && c.since >= trimApart
}

// startThreshold is from how many free MiB on etcd copies the file before it starts; 0: it does not. For the file's size and the disk's free
// bytes. It is for file systems without holes alone: where there are some, nobody has to wait.
func startThreshold(size, free int64, holes bool) uint {
	if holes || free < size/2+lowFree { // the copy would fill the disk
		return 0
	}
	return uint(max(trimGain, size/2) >> 20)
}

// upkeep is what is remembered from one round to the next.
type upkeep struct {
	trimmed  time.Time
	revision int64 // at the last look
}

// maintain looks after the database until ctx ends.
func (s *Store) maintain(ctx context.Context) {
	select {
	case <-s.Ready():
	case <-ctx.Done():
		return
	}
	s.disarm(ctx)
	var state upkeep
	timer := time.NewTimer(0)
	defer timer.Stop()
	said, quota := roomy, s.space.quota.Load()
	for {
		select {
		case <-timer.C:
		case <-s.space.wake:
		case <-ctx.Done():
			return
		}
		level := s.space.pressure()
		if level != said {
			s.log.Warn("room of the database", "level", level.String(), "free MiB", s.space.free.Load()>>20, "used MiB", s.space.used()>>20, "dir", s.space.dir)
			said = level
		}
		if now := s.space.quota.Load(); now != quota {
			s.log.Warn("the database may use more", "was MiB", quota>>20, "is MiB", now>>20, "used MiB", s.space.used()>>20, "free MiB", s.space.free.Load()>>20)
			quota = now
		}
		s.look(ctx, level, &state)
		every := calmEvery
		if level != roomy {
			every = tightEvery
		}
		timer.Reset(every)
	}
}

func (p pressure) String() string { return [...]string{"enough", "low", "full"}[p] }

// look is one round. Without room, history is given up at once: deleted and replaced versions are what fills the file.
func (s *Store) look(ctx context.Context, level pressure, state *upkeep) {
	ctx, cancel := context.WithTimeout(ctx, upkeepPeriod)
	defer cancel()
	if level != roomy {
		s.forget(ctx)
		s.space.measure()
	}
	b, now := s.etcd.Server.Backend(), time.Now()
	c := condition{allocated: allocated(s.file()), used: b.SizeInUse(), level: level, since: now.Sub(state.trimmed)}
	if trimDue(c) {
		state.trimmed = now
		err := s.trim(ctx, true)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("free pages of the database stay on the disk, to be used again", "err", err)
		} else {
			s.log.Info("free pages of the database given back to the disk", "was MiB", c.allocated>>20, "is MiB", allocated(s.file())>>20, "used MiB", c.used>>20,
				"took", time.Since(now).Round(time.Millisecond))
		}
	}
	if level != roomy {
		return
	}
	if rev := s.etcd.Server.KV().Rev(); rev != state.revision { // something was written: other pages come next
		state.revision = rev
		reserve(s.file(), b.Size(), reserveAhead)
		if err := s.trim(ctx, false); err != nil && ctx.Err() == nil {
			s.log.Warn("no blocks are reserved for free pages of the database", "err", err)
		}
	}
}

// forget compacts the whole history. Watches go on: they are served from memory.
func (s *Store) forget(ctx context.Context) {
	r, err := s.client.KV.Get(ctx, keyPrefix+"/health", clientv3.WithCountOnly())
	if err != nil {
		return
	}
	_, err = s.client.KV.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	if err == nil {
		s.etcd.Server.Backend().ForceCommit() // freed pages count when they are committed
	}
}

// disarm takes back alarms that came with the data: this store judges space itself, and etcd's alarm would refuse every write for ever.
func (s *Store) disarm(ctx context.Context) {
	for _, a := range s.etcd.Server.Alarms() {
		if a.Alarm != pb.AlarmType_NOSPACE {
			continue
		}
		if _, err := s.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			s.log.Warn("alarm of full database", "err", err)
		}
	}
}

func (s *Store) file() string { return filepath.Join(s.dir, "etcd", "member", "snap", "db") }
