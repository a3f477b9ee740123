package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

func configMaps(t *testing.T, s *Store) storage.Interface {
	return objects(t, s, "configmaps", false, func() runtime.Object { return &corev1.ConfigMap{} }, func() runtime.Object { return &corev1.ConfigMapList{} })
}

func configMap(name string, size int) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Data: map[string]string{"k": strings.Repeat("x", size)}}
}

func fill(t *testing.T, st storage.Interface, n, size int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("c%d", i)
		if err := st.Create(t.Context(), "/configmaps/n/"+name, configMap(name, size), &corev1.ConfigMap{}, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func count(t *testing.T, st storage.Interface) int {
	t.Helper()
	var list corev1.ConfigMapList
	if err := st.GetList(t.Context(), "/configmaps/n/", storage.ListOptions{Predicate: storage.Everything, Recursive: true}, &list); err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

func edit(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A torn tail is cut off; anything else that is damaged is refused with the way out, and left as it is.
func TestHostile_RA4(t *testing.T) {
	const objects = 60
	log := func(dir string) string {
		files, err := filepath.Glob(filepath.Join(dir, "etcd", "member", "wal", "*.wal"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no log in %s: %v", dir, err)
		}
		return files[len(files)-1]
	}
	db := func(dir string) string { return filepath.Join(dir, "etcd", "member", "snap", "db") }
	for name, c := range map[string]struct {
		file    func(string) string
		damage  func([]byte) []byte
		refused bool
	}{
		"torn last record": {log, func(b []byte) []byte { return b[:len(bytes.TrimRight(b, "\x00"))-100] }, false},
		"bit flip mid-log": {log, func(b []byte) []byte { b[len(bytes.TrimRight(b, "\x00"))/2] ^= 4; return b }, true},
		"zeroed pages": {db, func(b []byte) []byte {
			for i := 2 * 4096; i < len(b); i++ {
				b[i] = 0
			}
			return b
		}, true},
		"truncated file": {db, func(b []byte) []byte { return b[:3*4096] }, true},
		"empty file":     {db, func([]byte) []byte { return []byte("x") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			fill(t, configMaps(t, s), objects, 600)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, c.file(dir), c.damage)
			before, _ := os.ReadFile(c.file(dir))
			again, err := Open(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
			if !c.refused {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				_ = again.Close()
				if n := count(t, configMaps(t, open(t, dir))); n < objects-1 {
					t.Errorf("%d objects are left of %d", n, objects)
				}
				return
			}
			if err == nil {
				_ = again.Close()
				t.Fatal("opened")
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "keelson snapshot restore") || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v; want %v, the place and the way out", err, ErrDamaged)
			}
			if after, _ := os.ReadFile(c.file(dir)); !bytes.Equal(before, after) {
				t.Error("the damaged file was changed")
			}
		})
	}
}
