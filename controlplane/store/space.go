package store

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// pressure says how short of space the database is.
type pressure int32

const (
	// roomy: everything is written.
	roomy pressure = iota
	// low: what exists may change, because its old version is soon compacted away; nothing new is made.
	low
	// full: only deletions, and the updates that a deletion consists of.
	full
)

// Below lowFree bytes on the disk nothing new is made, below fullFree nothing grows. etcd does not survive a write that
// fails: what is left must be enough for its next log segment (16 MiB), a growth of the database file (16 MiB) and a snapshot.
const (
	lowFree  = 128 << 20
	fullFree = 48 << 20
)

// measureEvery bounds how old a measurement may be when a write is judged.
const measureEvery = 250 * time.Millisecond

// judge is the rule: by free bytes on the disk, and by the bytes in use of those allowed.
func judge(free, used, quota int64) pressure {
	switch {
	case free < fullFree || used >= quota:
		return full
	case free < lowFree || used >= quota/100*95:
		return low
	}
	return roomy
}

// raised is the quota that follows one that nobody chose: a quarter more before it is reached, while the disk has room for all of it again.
func raised(free, used, quota int64) int64 {
	if used >= quota/10*9 && free >= quota {
		return quota + quota/4
	}
	return quota
}

// space watches how much room there is. Safe for concurrent use.
type space struct {
	dir   string
	fixed bool // somebody chose the quota
	used  func() int64
	wake  chan struct{} // gets one when the level changes, so that the upkeep does not sleep over it

	quota atomic.Int64 // of bytes in use

	at    atomic.Int64 // when measured, in ns of the process's monotonic clock
	level atomic.Int32
	free  atomic.Int64
}

var processStart = time.Now()

// pressure measures if the last measurement is old. Concurrent callers may both measure: that is harmless.
func (s *space) pressure() pressure {
	now := int64(time.Since(processStart)) + 1
	if last := s.at.Load(); last == 0 || now-last > int64(measureEvery) {
		s.measure()
		s.at.Store(now)
	}
	return pressure(s.level.Load())
}

// freeBytes of the disk of dir that this process may use, -1 if that cannot be told.
func freeBytes(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return -1
	}
	if os.Geteuid() == 0 {
		return int64(st.Bfree) * st.Bsize // what is reserved for root is ours too
	}
	return int64(st.Bavail) * st.Bsize
}

func (s *space) measure() {
	free := freeBytes(s.dir)
	if free < 0 {
		return // the last answer stands: a directory that cannot be looked at shows in its own errors
	}
	s.free.Store(free)
	used, quota := s.used(), s.quota.Load()
	if next := raised(free, used, quota); !s.fixed && next != quota {
		s.quota.CompareAndSwap(quota, next)
		quota = next
	}
	now := judge(free, used, quota)
	roomGauge.Set(float64(now))
	freeGauge.Set(float64(free))
	if pressure(s.level.Swap(int32(now))) == now {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// refusal is what a client is told; nil if the write may be made.
func (s *space) refusal(what string) error {
	used, quota := s.used(), s.quota.Load()
	why := fmt.Sprintf("the disk of %s has %d MiB left", s.dir, s.free.Load()>>20)
	if used >= quota/100*95 {
		why = fmt.Sprintf("the database uses %d of %d MiB", used>>20, quota>>20)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: "InsufficientStorage",
		Message: fmt.Sprintf("%s is refused: %s; free space there or delete objects (deletions are accepted), writes are accepted again by themselves", what, why)}}
}

// guarded refuses what would fill the disk. etcd would end the process instead.
type guarded struct {
	storage.Interface
	space *space
}

func (g guarded) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	if g.space.pressure() != roomy {
		return g.space.refusal("a new object")
	}
	return g.Interface.Create(ctx, key, obj, out, ttl)
}

// GuaranteedUpdate implements storage.Interface. An update of what is being deleted always passes: removing a finalizer, or
// setting the time of deletion, is how objects go.
func (g guarded) GuaranteedUpdate(ctx context.Context, key string, dest runtime.Object, ignoreNotFound bool,
	pre *storage.Preconditions, update storage.UpdateFunc, cached runtime.Object) error {
	level := g.space.pressure()
	if level == roomy {
		return g.Interface.GuaranteedUpdate(ctx, key, dest, ignoreNotFound, pre, update, cached)
	}
	return g.Interface.GuaranteedUpdate(ctx, key, dest, ignoreNotFound, pre, func(in runtime.Object, res storage.ResponseMeta) (runtime.Object, *uint64, error) {
		out, ttl, err := update(in, res)
		if err != nil {
			return out, ttl, err
		}
		m, err := meta.Accessor(out)
		if err == nil && m.GetDeletionTimestamp() != nil {
			return out, ttl, nil
		}
		switch {
		case level == full:
			return nil, nil, g.space.refusal("a change")
		case res.ResourceVersion == 0:
			return nil, nil, g.space.refusal("a new object")
		}
		return out, ttl, nil
	}, cached)
}

// reserve has the disk hold blocks for the database file, whose pages end at `end`, up to `ahead` bytes beyond its own end, so that
// deletions and compaction can be written when nothing else is left. A file system that cannot promise that changes nothing.
func reserve(path string, end, ahead int64) {
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil {
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, end, max(0, st.Size()-end)+ahead)
	}
}
