package store

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"keelson.dev/keelson/controlplane/store/snapshot"
)

// TestHostile_RA20: what is restored is another cluster to etcd than the one whose other members may still run, which refuse it and are
// refused by it: a message with another cluster's id is dropped. Each restore is one of its own.
func TestHostile_RA20(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "pki"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pki", "ca.crt"), []byte("authority"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(dir, "db"))
	file, _, err := snapshot.Save(t.Context(), snapshot.Source{Dir: dir, Backup: s.Backup, Version: "v1.37.2", Now: time.Now}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ids := map[uint64]bool{uint64(s.etcd.Server.Cluster().ID()): true}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		clean := filepath.Join(t.TempDir(), "server")
		if _, _, err := snapshot.Restore(file, snapshot.Options{Dir: clean, Version: "v1.37.2", Now: time.Now()}); err != nil {
			t.Fatal(err)
		}
		id := uint64(open(t, filepath.Join(clean, "db")).etcd.Server.Cluster().ID())
		if ids[id] {
			t.Errorf("cluster id %x again", id)
		}
		ids[id] = true
	}
}

// TestHostile_RA21 in small: what is replaced all the time takes no more room than its history, with nobody's attention. (A day of
// 10,000 writes per second is a measurement, not a test.)
func TestHostile_RA21(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir(), History: 500 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	<-s.Ready()
	st := configMaps(t, s)
	fill(t, st, 1, 10)
	const writes, size = 1500, 20_000
	for i := range writes {
		err := st.GuaranteedUpdate(t.Context(), "/configmaps/n/c0", &corev1.ConfigMap{}, false, nil, storage.SimpleUpdate(func(runtime.Object) (runtime.Object, error) {
			c := configMap("c0", size)
			c.Data["n"] = fmt.Sprint(i)
			return c, nil
		}), nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	backend := s.etcd.Server.Backend()
	until(t, "history is compacted", func() bool {
		backend.ForceCommit()
		return backend.SizeInUse() < writes*size/10
	})
}
