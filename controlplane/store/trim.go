package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"time"
	"unsafe"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"golang.org/x/sys/unix"
)

// bbolt's file never gets smaller: pages that hold nothing are used again. Its way out, and etcd's, is to copy everything into a new file
// while nobody reads or writes. Here the blocks of free pages are taken out of the file where they are (fallocate(2),
// FALLOC_FL_PUNCH_HOLE), some milliseconds at a time: reads go on, a write waits for one such piece at most, and no room for a copy is
// needed. What the next commit may overwrite may as well be gone: no reader and no state that a crash may go back to needs it.
//
// A page whose block is gone needs a new one when it is used again, and etcd ends the process if the disk has none. So the pages that are
// used next keep theirs (see ration), which is why the freelist is bbolt's array: it hands out the lowest pages that fit.

const (
	// trimHold is how long writes are held up at most, by the clock and save for the last call; trimPause is their turn.
	trimHold  = 2 * time.Millisecond
	trimPause = 4 * time.Millisecond
	// runAhead of what is kept is in one piece, for an object of the largest size and its neighbours in the tree.
	runAhead = 4 << 20
)

// ration of free pages that keep their blocks, in the order in which bbolt takes them; in pages.
type ration struct {
	any int // still to be kept
	run int // still to be kept in one piece
}

// cut takes the next n free pages, which are in one piece, and returns how many of them, the first, keep their blocks.
func (r *ration) cut(n int) int {
	keep := min(n, r.any)
	if r.run > 0 && n >= r.run {
		keep, r.run = max(keep, r.run), 0
	}
	r.any -= min(keep, r.any)
	return keep
}

func (r *ration) full() bool { return r.any == 0 && r.run == 0 }

// extent returns how many pages at the beginning of ids, which ascend, follow each other.
func extent(ids []uint64) int {
	n := 1
	for n < len(ids) && ids[n] == ids[0]+uint64(n) {
		n++
	}
	return n
}

// trim gives blocks to the first free pages of the file, and with punch takes them from all others. It stops when ctx ends; what is done
// is done. Errors of the file system: errors.ErrUnsupported if it has no holes.
func (s *Store) trim(ctx context.Context, punch bool) error {
	b := s.etcd.Server.Backend()
	db, err := database(b)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.file(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	t := trimmer{file: f, page: int64(db.Info().PageSize), punch: punch}
	t.ration = ration{any: int(reserveAhead / t.page), run: int(runAhead / t.page)}
	b.ForceCommit() // what was deleted is free after it
	timer := time.NewTimer(0)
	defer timer.Stop()
	for tx := b.BatchTx(); ; {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		tx.LockOutsideApply() // nothing is committed, so that no page is taken or given back
		done, err := t.some(freePages(db), time.Now().Add(trimHold))
		tx.Unlock()
		if done || err != nil {
			return err
		}
		timer.Reset(trimPause)
	}
}

type trimmer struct {
	file   *os.File
	page   int64 // bytes of one
	punch  bool
	ration ration
	next   uint64 // the page that is looked at next
}

// some goes on with the free pages ids, which ascend, until the time is over; true if that was all.
func (t *trimmer) some(ids []uint64, until time.Time) (bool, error) {
	from, _ := slices.BinarySearch(ids, t.next)
	for ids = ids[from:]; len(ids) > 0 && (t.punch || !t.ration.full()); {
		if time.Now().After(until) {
			return false, nil
		}
		n := extent(ids)
		keep := t.ration.cut(n)
		if err := t.back(ids[0], keep); err != nil {
			return false, err
		}
		if t.punch && keep < n {
			if err := unix.Fallocate(int(t.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(ids[keep])*t.page, int64(n-keep)*t.page); err != nil {
				return false, fmt.Errorf("punch holes in %s: %w", t.file.Name(), err)
			}
		}
		t.next = ids[n-1] + 1
		ids = ids[n:]
	}
	return true, nil
}

// back has blocks for n pages. No room for them is no error: who asks for it judges the room.
func (t *trimmer) back(first uint64, n int) error {
	if n == 0 {
		return nil
	}
	at, length := int64(first)*t.page, int64(n)*t.page
	if hole, err := unix.Seek(int(t.file.Fd()), at, unix.SEEK_HOLE); err == nil && hole >= at+length {
		return nil
	}
	err := unix.Fallocate(int(t.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, at, length)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// punchable tells whether the file system can take blocks out of a file: it is asked for some behind its end, which holds nothing.
func punchable(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	const ahead = 1 << 40 // nothing is reserved there
	return err == nil && unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, st.Size()+ahead, 4096) == nil
}

// allocated is how many bytes of the disk a file takes, -1 if that cannot be told.
func allocated(path string) int64 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return -1
	}
	return st.Blocks * 512
}

// boltOptions are what etcd opens its database with.
//
//go:linkname boltOptions go.etcd.io/etcd/server/v3/storage/backend.boltOpenOptions
var boltOptions *bolt.Options

// etcd has the whole file mapped at once (MAP_POPULATE), with its free pages and holes: 16 MB of memory at the least after a restart, and a
// second for each GB. What is read comes in by itself.
func init() { boltOptions.MmapFlags &^= unix.MAP_POPULATE }

// database is bbolt's part of etcd's backend, to which the library has no door. Fields of another name or type, after a change of version,
// are an error here and a failed test.
func database(b backend.Backend) (*bolt.DB, error) {
	v := reflect.Indirect(reflect.ValueOf(b)).FieldByName("db")
	if !v.IsValid() || v.Type() != reflect.TypeFor[*bolt.DB]() {
		return nil, fmt.Errorf("the database in %T is not where it was: this keelson was built with a version of etcd that it does not know", b)
	}
	db := (*bolt.DB)(v.UnsafePointer())
	if ids := freeIDs(db); !ids.IsValid() || ids.Kind() != reflect.Slice || ids.Type().Elem().Kind() != reflect.Uint64 {
		return nil, errors.New("the freelist of the database is not bbolt's array: this keelson was built with a version of bbolt that it does not know")
	}
	return db, nil
}

// freeIDs is the array of the pages that the next commit may use: pages that a reader may still read are not among them.
func freeIDs(db *bolt.DB) reflect.Value {
	list := reflect.ValueOf(db).Elem().FieldByName("freelist")
	if !list.IsValid() || list.Kind() != reflect.Interface {
		return reflect.Value{}
	}
	array := list.Elem()
	if array.Kind() != reflect.Pointer || array.Elem().Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return array.Elem().FieldByName("ids")
}

// freePages are the free pages of a database that passed database(), ascending. They hold while nothing is committed. A database that has
// been closed meanwhile has none.
func freePages(db *bolt.DB) []uint64 {
	ids := freeIDs(db)
	if !ids.IsValid() {
		return nil
	}
	return unsafe.Slice((*uint64)(ids.UnsafePointer()), ids.Len())
}
