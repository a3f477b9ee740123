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
	// Rewriting the file stops reads and writes of the database for its time, which goes by what is in use. Pages that are free are written
	// again, so that a file does not grow by them: only the disk gets them back. So it is done unasked if there is much to gain and the stop
	// is short, or nobody writes and the stop is shorter than the patience of clients that hold a lease (10 s, of which they have used some);
	// and before the start, when nobody waits yet.
	shortStop    = time.Second
	quietStop    = 4 * time.Second
	firstSpeed   = 96 << 20 // bytes in use per second, until one has been measured: of a slow disk
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
	speed            int64         // in bytes in use per second
	quiet            bool          // hardly anything is written
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
	stop := time.Duration(float64(c.used) / float64(c.speed) * float64(time.Second))
	return gain >= defragGain && gain >= c.size/2 && (stop <= shortStop || c.quiet && stop <= quietStop) && c.since >= defragApart
}

// startThreshold is from how many free MiB on etcd rewrites the file before it starts; 0: it does not. size is the file's, free the disk's.
func startThreshold(size, free int64) uint {
	if free < size/2+lowFree {
		return 0 // the copy would fill the disk
	}
	return uint(max(defragGain, size/2) >> 20)
}

// upkeep is what is remembered from one round to the next.
type upkeep struct {
	rewritten time.Time
	speed     int64
	looked    time.Time
	revision  int64
}

// quiet tells whether less than one write a second has been made since it was asked last.
func (u *upkeep) quiet(now time.Time, revision int64) bool {
	written, passed := revision-u.revision, now.Sub(u.looked)
	u.revision, u.looked = revision, now
	return float64(written) <= passed.Seconds()
}

// maintain looks after the database until ctx ends.
func (s *Store) maintain(ctx context.Context) {
	select {
	case <-s.Ready():
	case <-ctx.Done():
		return
	}
	s.disarm(ctx)
	state := upkeep{rewritten: time.Now(), looked: time.Now(), speed: firstSpeed}
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
	if level == roomy {
		reserve(s.file(), reserveAhead)
	} else {
		s.forget(ctx)
		s.space.measure()
	}
	backend := s.etcd.Server.Backend()
	now := time.Now()
	c := condition{size: backend.Size(), used: backend.SizeInUse(), free: s.space.free.Load(), level: level, since: now.Sub(state.rewritten),
		speed: state.speed, quiet: state.quiet(now, s.etcd.Server.KV().Rev())}
	if !defragDue(c) {
		return
	}
	state.rewritten = now
	if err := backend.Defrag(); err != nil {
		s.log.Warn("rewriting the database file failed: it stays as it is", "err", err)
		return
	}
	s.log.Info("database file rewritten", "was MiB", c.size>>20, "is MiB", backend.Size()>>20, "took", time.Since(now).Round(time.Millisecond))
	state.speed = max(1, int64(float64(c.used)/time.Since(now).Seconds()))
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
