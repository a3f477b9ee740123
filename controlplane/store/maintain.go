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
	// reserveAhead is kept on the disk for deletions and compaction.
	reserveAhead = 16 << 20
	// Rewriting the file stops reads and writes of the database for its time: about a second for 150 MiB in use on a
	// slow disk, a tenth of it on a fast one. So it is done unasked only if that is short and there is much to gain.
	defragMost   = 128 << 20
	defragGain   = 64 << 20
	defragApart  = 10 * time.Minute
	tightApart   = 30 * time.Second
	tightGain    = 8 << 20
	upkeepPeriod = 20 * time.Second // limit of one round
)

// condition is what the decision to rewrite the file is taken by; sizes in bytes.
type condition struct {
	size, used, free int64
	level            pressure
	since            time.Duration // since the last time
}

// defragDue tells whether to rewrite the file. Without room it is the way to give space back to the disk, and worth the stop.
func defragDue(c condition) bool {
	gain := c.size - c.used
	if c.free < c.used+fullFree/2 {
		return false // the copy would fill the disk
	}
	if c.level != roomy {
		return gain >= tightGain && c.since >= tightApart
	}
	return gain >= defragGain && gain >= c.size/2 && c.used <= defragMost && c.since >= defragApart
}

// maintain looks after the database until ctx ends.
func (s *Store) maintain(ctx context.Context) {
	select {
	case <-s.Ready():
	case <-ctx.Done():
		return
	}
	s.disarm(ctx)
	last := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := roomy
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
		s.upkeep(ctx, level, &last)
		every := calmEvery
		if level != roomy {
			every = tightEvery
		}
		timer.Reset(every)
	}
}

func (p pressure) String() string { return [...]string{"enough", "low", "full"}[p] }

// upkeep is one round. Without room, history is given up at once: deleted and replaced versions are what fills the file.
func (s *Store) upkeep(ctx context.Context, level pressure, last *time.Time) {
	ctx, cancel := context.WithTimeout(ctx, upkeepPeriod)
	defer cancel()
	if level == roomy {
		reserve(s.file(), reserveAhead)
	} else {
		s.forget(ctx)
		s.space.measure()
	}
	backend := s.etcd.Server.Backend()
	if !defragDue(condition{backend.Size(), backend.SizeInUse(), s.space.free.Load(), level, time.Since(*last)}) {
		return
	}
	before, began := backend.Size(), time.Now()
	*last = began
	if err := backend.Defrag(); err != nil {
		s.log.Warn("rewriting the database file failed: it stays as it is", "err", err)
		return
	}
	s.log.Info("database file rewritten", "was MiB", before>>20, "is MiB", backend.Size()>>20, "took", time.Since(began).Round(time.Millisecond))
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
