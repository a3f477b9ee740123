package store

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

func TestJudge(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		free, used, quota int64
		want              pressure
	}{
		{1000 * mib, 10 * mib, 100 * mib, roomy},
		{lowFree, 0, 100 * mib, roomy},
		{lowFree - 1, 0, 100 * mib, low},
		{fullFree - 1, 0, 100 * mib, full},
		{1000 * mib, 95 * mib, 100 * mib, low},
		{1000 * mib, 100 * mib, 100 * mib, full},
		{0, 100 * mib, 100 * mib, full},
	} {
		if got := judge(c.free, c.used, c.quota); got != c.want {
			t.Errorf("judge(%d, %d, %d) = %v, want %v", c.free, c.used, c.quota, got, c.want)
		}
	}
}

// A quota that nobody chose is raised before it is reached, as long as the disk has the room.
func TestRaised(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct{ free, used, quota, want int64 }{
		{100 * gib, 1 * gib, 8 * gib, 8 * gib},
		{100 * gib, 8 * gib, 8 * gib, 10 * gib},
		{8 * gib, 8*gib - 512<<20, 8 * gib, 10 * gib},
		{7 * gib, 8 * gib, 8 * gib, 8 * gib},
	} {
		if got := raised(c.free, c.used, c.quota); got != c.want {
			t.Errorf("raised(%d, %d, %d) = %d, want %d", c.free, c.used, c.quota, got, c.want)
		}
	}
	s := &space{dir: t.TempDir(), used: func() int64 { return 95 << 10 }, wake: make(chan struct{}, 1)}
	s.quota.Store(100 << 10)
	if s.pressure() != roomy || s.quota.Load() != 125<<10 {
		t.Errorf("quota %d, %v", s.quota.Load(), s.pressure())
	}
	s.fixed, s.used = true, func() int64 { return 125 << 10 }
	s.measure()
	if level := s.pressure(); level != full || s.quota.Load() != 125<<10 {
		t.Errorf("a quota that was chosen: %d, %v", s.quota.Load(), level)
	}
}

func TestStartThreshold(t *testing.T) {
	for _, c := range []struct {
		size, free int64
		holes      bool
		want       uint
	}{
		{10 << 20, 1 << 40, false, trimGain >> 20},
		{1 << 30, 1 << 40, false, 512},
		{1 << 30, 512 << 20, false, 0},
		{1 << 30, 1 << 40, true, 0},
	} {
		if got := startThreshold(c.size, c.free, c.holes); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// hollow has a hundred MiB of the file used and free again.
func hollow(s *Store) {
	b := s.etcd.Server.Backend()
	tx := b.BatchTx()
	tx.LockOutsideApply()
	tx.UnsafeCreateBucket(schema.Test)
	for i := range 100 {
		tx.UnsafePut(schema.Test, []byte{byte(i)}, make([]byte, 1<<20))
	}
	tx.Unlock()
	b.ForceCommit()
	tx.LockOutsideApply()
	for i := range 100 {
		tx.UnsafeDelete(schema.Test, []byte{byte(i)})
	}
	tx.Unlock()
	b.ForceCommit()
	tx.LockOutsideApply()
	tx.UnsafePut(schema.Test, []byte("x"), nil) // the pages can be taken from the next commit on
	tx.Unlock()
	b.ForceCommit()
}

// refused tells whether the error is the one of a full disk; any other is fatal.
func refused(t *testing.T, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	if s, ok := err.(apierrors.APIStatus); !ok || s.Status().Code != http.StatusInsufficientStorage {
		t.Fatal(err)
	}
	return true
}

// until waits for what the store does by itself.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in 30 s: ", what)
		}
	}
}

// A disk that others fill to the last byte: what grows is refused, deletions pass, the process lives, and writes are accepted again
// when there is room.
func TestHostile_RA6(t *testing.T) {
	t.Run("dense", func(t *testing.T) { fullDisk(t, func(*Store) {}) })
	t.Run("with holes", func(t *testing.T) { // which others have filled, when the free pages are needed again
		fullDisk(t, func(s *Store) {
			hollow(s)
			before := allocated(s.file())
			if err := s.trim(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if after := allocated(s.file()); after > before-70<<20 {
				t.Fatalf("%d bytes on the disk before, %d after", before, after)
			}
		})
	})
}

func fullDisk(t *testing.T, prepare func(*Store)) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256m"); err != nil {
		t.Skip("needs the right to mount: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := open(t, filepath.Join(dir, "db"))
	st := configMaps(t, s)
	fill(t, st, 100, 10_000)
	until(t, "blocks are reserved", func() bool {
		st, err := os.Stat(s.file())
		return err == nil && allocated(s.file()) >= st.Size()+reserveAhead
	})
	prepare(s)

	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(chunk)
	}
	grow := func(name string) error {
		return st.Create(t.Context(), "/configmaps/n/"+name, configMap(name, 10_000), &corev1.ConfigMap{}, 0)
	}
	change := func(name string) error {
		return st.GuaranteedUpdate(t.Context(), "/configmaps/n/"+name, &corev1.ConfigMap{}, false, nil, storage.SimpleUpdate(func(o runtime.Object) (runtime.Object, error) {
			c := o.(*corev1.ConfigMap)
			c.Data["k"] += "y"
			return c, nil
		}), nil)
	}
	accepted := 0
	until(t, "a full disk is noticed", func() bool {
		accepted++
		return refused(t, grow(fmt.Sprintf("new%d", accepted)))
	})
	accepted-- // the last was not
	if !refused(t, change("c1")) {
		t.Error("a change was written to a full disk")
	}
	for _, name := range []string{"c2", "c3", "c4"} {
		if err := st.Delete(t.Context(), "/configmaps/n/"+name, &corev1.ConfigMap{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
			t.Errorf("deletion on a full disk: %v", err)
		}
	}
	// History goes, and what its pages held is free again.
	until(t, "history is given up", func() bool {
		_, err := s.client.KV.Get(context.Background(), "x", clientv3.WithRev(2))
		return err != nil
	})
	if n := count(t, st); n != 97+accepted {
		t.Errorf("%d objects; want %d", n, 97+accepted)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	f.Close()
	until(t, "writes are accepted again", func() bool { return !refused(t, grow("again")) })
	if refused(t, change("c1")) {
		t.Error("a change is refused with room")
	}
}

// The quota is by what is in use: deletions make room, without a rewrite of the file and without anybody's attention.
func TestQuotaHealsItself(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir(), QuotaBytes: 4 << 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	<-s.Ready()
	st := configMaps(t, s)
	var made []string
	until(t, "the quota is reached", func() bool {
		for range 10 {
			name := fmt.Sprintf("q%d", len(made))
			if refused(t, st.Create(t.Context(), "/configmaps/n/"+name, configMap(name, 30_000), &corev1.ConfigMap{}, 0)) {
				return true
			}
			made = append(made, name)
		}
		return false
	})
	for _, name := range made {
		if err := st.Delete(t.Context(), "/configmaps/n/"+name, &corev1.ConfigMap{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "room again", func() bool {
		return !refused(t, st.Create(t.Context(), "/configmaps/n/again", configMap("again", 10), &corev1.ConfigMap{}, 0))
	})
}
