package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage"
)

func TestTrimDue(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		in   condition
		want bool
	}{
		"little to gain":             {condition{allocated: 190 * mib, used: 100 * mib, since: time.Hour}, false},
		"much to gain":               {condition{allocated: 200 * mib, used: 100 * mib, since: time.Hour}, true},
		"much, but just done":        {condition{allocated: 200 * mib, used: 50 * mib, since: time.Minute}, false},
		"no room, little to gain":    {condition{allocated: 85 * mib, used: 50 * mib, level: low, since: time.Hour}, false},
		"no room, done a while ago":  {condition{allocated: 80 * mib, used: 10 * mib, level: low, since: time.Minute}, true},
		"the size cannot be told":    {condition{allocated: -1, used: 10 * mib, level: full, since: time.Hour}, false},
		"no room, done a moment ago": {condition{allocated: 500 * mib, used: 10 * mib, level: full, since: time.Second}, false},
	} {
		if got := trimDue(c.in); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRation(t *testing.T) {
	for name, c := range map[string]struct {
		extents, keep []int
	}{
		"the first, of any length":    {[]int{3, 3, 3, 3, 3}, []int{3, 3, 3, 1, 0}},
		"one in a piece, further on":  {[]int{3, 3, 3, 2, 9, 4}, []int{3, 3, 3, 1, 4, 0}},
		"one that is the first":       {[]int{20, 4}, []int{10, 0}},
		"one that is longer than any": {[]int{8, 8}, []int{8, 2}},
	} {
		r := ration{any: 10, run: 4}
		for i, n := range c.extents {
			if got := r.cut(n); got != c.keep[i] {
				t.Errorf("%s: extent %d: %d pages kept, want %d", name, i, got, c.keep[i])
			}
		}
	}
	if r := (&ration{any: 0, run: 1}); r.full() || r.cut(5) != 1 || !r.full() {
		t.Error("a piece is wanted")
	}
	if extent([]uint64{4, 5, 6, 8}) != 3 || extent([]uint64{9}) != 1 || extent([]uint64{1, 3}) != 1 {
		t.Error("extents")
	}
}

// TestTrimmer: blocks are taken from free pages alone and from all that are not kept, in as many pieces as the time makes; where there
// are none and there should be, there are again.
func TestTrimmer(t *testing.T) {
	const page, pages = 4096, 64
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte{7}, page*pages)); err != nil {
		t.Fatal(err)
	}
	if !punchable(f.Name()) {
		t.Skip("no holes on this file system")
	}
	var free []uint64
	for i := range uint64(pages) {
		if i%8 > 1 {
			free = append(free, i)
		}
	}
	holes := func(punch bool, want func(page uint64) bool) {
		t.Helper()
		tr := trimmer{file: f, page: page, punch: punch, ration: ration{any: 8}}
		rounds := 0
		for done := false; !done; rounds++ {
			until := time.Now().Add(time.Hour)
			if rounds < 2 {
				until = time.Time{} // no time at all: nothing may be lost by it
			}
			if done, err = tr.some(free, until); err != nil {
				t.Fatal(err)
			}
		}
		if rounds != 3 {
			t.Errorf("%d rounds", rounds)
		}
		b := make([]byte, page)
		for i := range uint64(pages) {
			if _, err := f.ReadAt(b, int64(i*page)); err != nil {
				t.Fatal(err)
			}
			if want(i) != (b[0] == 0) {
				t.Errorf("page %d is a hole: %v", i, b[0] == 0)
			}
		}
	}
	holes(true, func(i uint64) bool { return i%8 > 1 && i > 11 })
	after := allocated(f.Name())
	if after != (pages-40)*page {
		t.Errorf("%d bytes on the disk", after)
	}
	free = free[6:] // the first are in use now: others are next
	holes(false, func(i uint64) bool { return i%8 > 1 && i > 11 })
	if got := allocated(f.Name()); got != after+6*page {
		t.Errorf("%d bytes on the disk, %d before six pages more were backed", got, after)
	}
}

// A file system without holes is known before it is asked for some, and says so.
func TestNoHoles(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Skip("needs the right to mount: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr := trimmer{file: f, page: 4096, punch: true, ration: ration{any: 1}}
	if _, err := tr.some([]uint64{3, 4}, time.Now().Add(time.Hour)); !errors.Is(err, errors.ErrUnsupported) || punchable(f.Name()) {
		t.Errorf("%v, punchable: %v", err, punchable(f.Name()))
	}
}

// TestTrimUnderLoad: while clients write, read and delete, a snapshot is taken and history is forgotten, blocks are taken from the file all
// the time. Nothing is lost, no read sees anything else, and the pages of the file are sound (RA3 in small).
func TestTrimUnderLoad(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if !punchable(s.file()) {
		t.Skip("no holes on this file system")
	}
	st := configMaps(t, s)
	hollow(s)
	before := allocated(s.file())
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var wg sync.WaitGroup
	live := make([]map[string]int, 4)
	for w := range live {
		live[w] = map[string]int{}
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name, size := fmt.Sprintf("w%d-%d", w, i), 100+rand.IntN(30_000)
				if err := st.Create(t.Context(), "/configmaps/n/"+name, configMap(name, size), &corev1.ConfigMap{}, 0); err != nil {
					t.Error(err)
					return
				}
				live[w][name] = size
				for name, size := range live[w] { // any
					if !holds(t, st, name, size) {
						return
					}
					if rand.IntN(3) == 0 {
						break
					}
					if err := st.Delete(t.Context(), "/configmaps/n/"+name, &corev1.ConfigMap{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
						t.Error(err)
						return
					}
					delete(live[w], name)
					break
				}
			}
		})
	}
	saves := 0
	wg.Go(func() {
		for ; ctx.Err() == nil; saves++ {
			s.forget(t.Context())
			file := filepath.Join(dir, fmt.Sprint("copy", saves))
			if err := s.Backup(file); err != nil {
				t.Error(err)
				return
			}
			sound(t, file)
		}
	})
	trims := 0
	for ; ctx.Err() == nil; trims++ {
		if err := s.trim(ctx, true); err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	total := 0
	for _, objects := range live {
		total += len(objects)
		for name, size := range objects {
			holds(t, st, name, size)
		}
	}
	if n := count(t, st); n != total {
		t.Errorf("%d objects; want %d", n, total)
	}
	if after := allocated(s.file()); after > before-50<<20 {
		t.Errorf("%d bytes on the disk before, %d after", before, after)
	}
	t.Logf("%d trims, %d saves, %d objects", trims, saves, total)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sound(t, s.file())
	if n := count(t, configMaps(t, open(t, dir))); n != total {
		t.Errorf("%d objects after a restart; want %d", n, total)
	}
}

// A file with holes is opened without a wait, and takes memory for what it holds alone.
func TestHollowAtStart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if !punchable(s.file()) {
		t.Skip("no holes on this file system")
	}
	fill(t, configMaps(t, s), 20, 10)
	hollow(s)
	if err := s.trim(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if n := count(t, configMaps(t, again)); n != 20 {
		t.Errorf("%d objects", n)
	}
	size, mapped := again.etcd.Server.Backend().Size(), resident(t, again.file())
	if size < 100<<20 || mapped > 8<<20 {
		t.Errorf("of a file of %d bytes %d are in memory", size, mapped)
	}
}

// resident is how many bytes of a file this process has mapped into memory.
func resident(t *testing.T, file string) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), file)
	_, rest, found := strings.Cut(rest, "\nRss:")
	var kib int64
	if n, _ := fmt.Sscan(rest, &kib); !ok || !found || n != 1 {
		t.Fatalf("%s is not mapped", file)
	}
	return kib << 10
}

func holds(t *testing.T, st storage.Interface, name string, size int) bool {
	t.Helper()
	var c corev1.ConfigMap
	if err := st.Get(t.Context(), "/configmaps/n/"+name, storage.GetOptions{}, &c); err != nil || len(c.Data["k"]) != size {
		t.Errorf("%s has %d bytes, want %d: %v", name, len(c.Data["k"]), size, err)
		return false
	}
	return true
}

// sound walks all pages of a database, with the checks of its library.
func sound(t *testing.T, file string) {
	t.Helper()
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: lockLimit})
	if err != nil {
		t.Error(err)
		return
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		var errs []error
		for err := range tx.Check() {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

// A reader that is still at it when pages become free keeps them: what it reads is what there was.
func TestTrimLeavesReaders(t *testing.T) {
	s := open(t, t.TempDir())
	if !punchable(s.file()) {
		t.Skip("no holes on this file system")
	}
	st := configMaps(t, s)
	fill(t, st, 200, 50_000)
	b := s.etcd.Server.Backend()
	b.ForceCommit()
	db, err := database(b)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	sum := func() (n int) {
		if err := reader.ForEach(func(_ []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error { n += len(k) + bytes.Count(v, []byte("x")); return nil })
		}); err != nil {
			t.Error(err)
		}
		return n
	}
	before := sum()
	for i := range 200 {
		if err := st.Delete(t.Context(), fmt.Sprintf("/configmaps/n/c%d", i), &corev1.ConfigMap{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // commits after the deletion, of which each may release pages
		s.forget(t.Context())
		fill(t, st, 1, 10)
		if err := st.Delete(t.Context(), "/configmaps/n/c0", &corev1.ConfigMap{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.trim(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if after := sum(); after != before || before < 10_000_000 {
		t.Errorf("%d bytes read before, %d after", before, after)
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
}

// On a disk without room the free pages of the file are given back unasked, and without room for a copy.
func TestTrimmedWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=300m"); err != nil {
		t.Skip("needs the right to mount: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s, err := Open(Config{Dir: filepath.Join(dir, "db"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	<-s.Ready()
	hollow(s)
	before := allocated(s.file())
	filler := make([]byte, freeBytes(dir)-lowFree+8<<20)
	if err := os.WriteFile(filepath.Join(dir, "filler"), filler, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "the disk has its blocks back", func() bool { s.space.pressure(); return allocated(s.file()) < before-70<<20 })
	until(t, "writes are accepted again", func() bool { return s.space.pressure() == roomy })
	if err := configMaps(t, s).Create(t.Context(), "/configmaps/n/a", configMap("a", 10), &corev1.ConfigMap{}, 0); err != nil {
		t.Error(err)
	}
}

// BenchmarkTrim: how long writers wait at most while the file of a database that held 150,000 objects, of which one in ten is left, is given
// back; beside them the library's own way.
func BenchmarkTrim(b *testing.B) {
	for name, way := range map[string]func(*Store) error{
		"trim":    func(s *Store) error { return s.trim(context.Background(), true) },
		"rewrite": func(s *Store) error { return s.etcd.Server.Backend().Defrag() },
		"nothing": func(*Store) error { time.Sleep(time.Second); return nil }, // the writers' waits in as much time as the others take
	} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				s, err := Open(Config{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					b.Fatal(err)
				}
				<-s.Ready()
				scatter(s, 150_000)
				s.look(b.Context(), roomy, &upkeep{trimmed: time.Now()}) // the file's end and its lowest free pages have their blocks
				size := allocated(s.file())
				ctx, stop := context.WithCancel(b.Context())
				waits := make(chan time.Duration)
				go func() {
					longest := time.Duration(0)
					for i := 0; ctx.Err() == nil; i++ {
						began := time.Now()
						if _, err := s.client.KV.Put(b.Context(), fmt.Sprint("/registry/w", i), "value"); err != nil {
							b.Error(err)
						}
						longest = max(longest, time.Since(began))
					}
					waits <- longest
				}()
				b.StartTimer()
				err = way(s)
				b.StopTimer()
				stop()
				b.ReportMetric(float64((<-waits).Microseconds())/1000, "ms-longest-write")
				b.ReportMetric(float64(size>>20), "MiB-before")
				b.ReportMetric(float64(allocated(s.file())>>20), "MiB-after")
				b.ReportMetric(float64(s.etcd.Server.Backend().SizeInUse()>>20), "MiB-used")
				if err = errors.Join(err, s.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// scatter puts n values of up to 4 kB and deletes nine of ten.
func scatter(s *Store, n int) {
	b := s.etcd.Server.Backend()
	tx := b.BatchTx()
	key := func(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }
	tx.LockOutsideApply()
	tx.UnsafeCreateBucket(schema.Test)
	tx.Unlock()
	for i := range n {
		tx.LockOutsideApply()
		tx.UnsafePut(schema.Test, key(i), make([]byte, rand.IntN(4000)))
		tx.Unlock()
	}
	b.ForceCommit()
	for i := 0; i < n; i += 1000 {
		tx.LockOutsideApply()
		for j := i; j < i+1000; j++ {
			if rand.IntN(10) > 0 {
				tx.UnsafeDelete(schema.Test, key(j))
			}
		}
		tx.Unlock()
	}
	b.ForceCommit()
}
