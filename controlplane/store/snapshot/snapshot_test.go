package snapshot_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes/scheme"

	"keelson.dev/keelson/controlplane/store"
	"keelson.dev/keelson/controlplane/store/snapshot"
)

const version = "v1.37.2+keelson1"

// open opens the database of a server's directory, which gets a certificate authority if it has none.
func open(t *testing.T, dir, ca string) *store.Store {
	t.Helper()
	pki := filepath.Join(dir, "pki")
	if err := os.MkdirAll(pki, 0o700); err != nil {
		t.Fatal(err)
	}
	if ca != "" {
		if err := os.WriteFile(filepath.Join(pki, "ca.crt"), []byte(ca), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(store.Config{Dir: filepath.Join(dir, "db"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	select {
	case <-s.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("no leader")
	}
	return s
}

func secrets(t *testing.T, s *store.Store) storage.Interface {
	t.Helper()
	codecs := serializer.NewCodecFactory(scheme.Scheme)
	getter := s.RESTOptions(func(schema.GroupResource, runtime.Object) (store.Resource, error) {
		return store.Resource{Codec: codecs.LegacyCodec(corev1.SchemeGroupVersion), Versioner: corev1.SchemeGroupVersion, Prefix: "secrets", Uncached: true, Secret: true}, nil
	})
	o, err := getter.GetRESTOptions(corev1.Resource("secrets"), &corev1.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	st, destroy, err := o.Decorator(o.StorageConfig, "/secrets", nil, func() runtime.Object { return &corev1.Secret{} },
		func() runtime.Object { return &corev1.SecretList{} }, storage.DefaultNamespaceScopedAttr, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(destroy)
	return st
}

func create(t *testing.T, s *store.Store, name string) string {
	t.Helper()
	var out corev1.Secret
	in := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Data: map[string][]byte{"k": []byte(name)}}
	if err := secrets(t, s).Create(t.Context(), "/secrets/n/"+name, in, &out, 0); err != nil {
		t.Fatal(err)
	}
	return out.ResourceVersion
}

func save(t *testing.T, s *store.Store, dir, to string) (string, snapshot.Manifest) {
	t.Helper()
	file, m, err := snapshot.Save(t.Context(), snapshot.Source{Dir: dir, Backup: s.Backup, Version: version, Now: time.Now}, to)
	if err != nil {
		t.Fatal(err)
	}
	return file, m
}

func options(dir string) snapshot.Options {
	return snapshot.Options{Dir: dir, Version: version, Now: time.Now()}
}

// A snapshot taken under way comes back on a machine that has nothing, with the keys of its Secrets; revisions go forward.
func TestRestoreOnCleanMachine(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	s := open(t, dir, "authority")
	create(t, s, "before")
	file, m := save(t, s, dir, to)
	after := create(t, s, "after")
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 || m.Keys == 0 {
		t.Errorf("file %v, %v, manifest %+v", fi, err, m)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	clean := filepath.Join(t.TempDir(), "server")
	old, _, err := snapshot.Restore(file, options(clean))
	if err != nil || old != "" {
		t.Fatalf("restore: kept %q, %v", old, err)
	}
	again := open(t, clean, "")
	var out corev1.Secret
	if err := secrets(t, again).Get(t.Context(), "/secrets/n/before", storage.GetOptions{}, &out); err != nil || string(out.Data["k"]) != "before" {
		t.Errorf("what was saved: %q, %v", out.Data["k"], err)
	}
	if err := secrets(t, again).Get(t.Context(), "/secrets/n/after", storage.GetOptions{}, &out); !storage.IsNotFound(err) {
		t.Errorf("what came after the snapshot: %v", err)
	}
	v := storage.APIObjectVersioner{}
	was, _ := v.ParseResourceVersion(after)
	is, _ := v.ParseResourceVersion(create(t, again, "new"))
	if is <= was {
		t.Errorf("revision %d after the restore, %d before: it went back", is, was)
	}
	// Who watched the old cluster is told to list again.
	w, err := secrets(t, again).Watch(t.Context(), "/secrets/n/", storage.ListOptions{ResourceVersion: after, Predicate: storage.Everything, Recursive: true})
	if err == nil {
		e := <-w.ResultChan()
		status, ok := e.Object.(*metav1.Status)
		if !ok || status.Code != 410 {
			t.Errorf("a watch from before got %v %v; want 410", e.Type, e.Object)
		}
		w.Stop()
	}
	if pki, err := os.ReadFile(filepath.Join(clean, "pki", "ca.crt")); err != nil || string(pki) != "authority" {
		t.Errorf("authority %q, %v", pki, err)
	}
}

// What is not a whole snapshot for this place is refused, and nothing is touched.
func TestHostile_RA19(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	s := open(t, dir, "authority")
	create(t, s, "a")
	file, _ := save(t, s, dir, to)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	o := open(t, other, "another authority")
	create(t, o, "kept")
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	older := options(filepath.Join(t.TempDir(), "server"))
	older.Version = "v1.36.0"
	for name, c := range map[string]struct {
		content []byte
		options snapshot.Options
		want    string
	}{
		"truncated":       {whole[:len(whole)/2], options(dir), "not a valid snapshot"},
		"without its end": {whole[:bytes.LastIndex(whole, []byte("manifest.json"))], options(dir), "cut off"},
		"one bit":         {flip(whole, len(whole)/3), options(dir), "SHA-256 differs"},
		"empty":           {nil, options(dir), "not a valid snapshot"},
		"escaping name":   {bytes.ReplaceAll(whole, []byte("files/pki/ca.crt"), []byte("../../../etc/pwn")), options(dir), "not a valid snapshot"},
		"another cluster": {whole, options(other), "of another cluster"},
		"newer version":   {whole, older, "older version"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad.snapshot")
			if err := os.WriteFile(bad, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			before := tree(t, c.options.Dir)
			_, _, err := snapshot.Restore(bad, c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), bad) {
				t.Errorf("error %v; want the file's name and %q", err, c.want)
			}
			if after := tree(t, c.options.Dir); after != before {
				t.Errorf("the directory was touched:\n%s\n%s", before, after)
			}
			if _, err := os.Stat(c.options.Dir + ".restoring"); err == nil {
				t.Error("work is left over")
			}
		})
	}
	forced := options(other)
	forced.Force = true
	old, _, err := snapshot.Restore(file, forced)
	if err != nil {
		t.Fatal(err)
	}
	if ca, _ := os.ReadFile(filepath.Join(old, "pki", "ca.crt")); string(ca) != "another authority" {
		t.Errorf("what was replaced is not kept in %q", old)
	}
	create(t, open(t, other, ""), "b")
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	_ = filepath.Walk(dir, func(p string, i os.FileInfo, err error) error {
		if err == nil {
			out.WriteString(p + " " + i.ModTime().String() + "\n")
		}
		return nil
	})
	return out.String()
}

func TestPruneAndDue(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"keelson-20260101T000000Z-r1.snapshot", "keelson-20260102T000000Z-r2.snapshot", "keelson-20260103T000000Z-r3.snapshot", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".saving-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Prune(dir, 2); err != nil {
		t.Fatal(err)
	}
	files, err := snapshot.List(dir)
	if err != nil || len(files) != 2 || !strings.Contains(files[0], "r3") {
		t.Errorf("left %v, %v", files, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "other")); err != nil {
		t.Error("a file of somebody else is gone")
	}
	if _, err := os.Stat(filepath.Join(dir, ".saving-1")); !errors.Is(err, os.ErrNotExist) {
		t.Error("an interrupted save is left")
	}
	now := time.Date(2026, 1, 3, 1, 0, 0, 0, time.UTC)
	if d := snapshot.Due(files[0], now, 12*time.Hour, time.Minute); d != 11*time.Hour {
		t.Errorf("due in %v", d)
	}
	if d := snapshot.Due("", now, 12*time.Hour, time.Minute); d != time.Minute {
		t.Errorf("without a snapshot due in %v", d)
	}
	if d := snapshot.Due(files[0], now.Add(100*time.Hour), 12*time.Hour, time.Minute); d != 0 {
		t.Errorf("overdue: %v", d)
	}
}

// TestHostile_RA18: where the snapshots go there is no room. The old one stays and is good, nothing half is left, and the next save works
// when there is room. (There is no upload to cut off: who wants snapshots elsewhere copies whole files.)
func TestHostile_RA18(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	if err := unix.Mount("tmpfs", to, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("needs the right to mount: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
	s := open(t, dir, "authority")
	create(t, s, "a")
	good, _ := save(t, s, dir, to)
	filler := filepath.Join(to, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 4096); err == nil; {
		_, err = f.Write(chunk)
	}
	f.Close()
	if _, _, err := snapshot.Save(t.Context(), snapshot.Source{Dir: dir, Backup: s.Backup, Version: version, Now: time.Now}, to); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("saved to a full disk: %v", err)
	}
	if _, err := snapshot.Verify(good); err != nil {
		t.Errorf("the old one: %v", err)
	}
	left, err := os.ReadDir(to)
	if err != nil || len(left) != 2 { // the old one and the filler
		t.Errorf("left are %v, %v", left, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	create(t, s, "b")
	save(t, s, dir, to)
}

// FuzzVerify: a file that is anything is a snapshot or an error, and never names a place outside.
func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "pki"), 0o700); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pki", "ca.crt"), []byte("authority"), 0o600); err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"db", "files/pki/ca.crt", "files/../x", "manifest.json"} {
		body := []byte(`{"format":1,"entries":{"db":"x"}}`)
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(body)), Typeflag: tar.TypeReg})
		_, _ = w.Write(body)
	}
	_ = w.Close()
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:600])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		clean := filepath.Join(t.TempDir(), "server")
		if _, _, err := snapshot.Restore(file, options(clean)); err == nil {
			t.Error("restored") // its database would have to be one
		}
		if _, err := os.Stat(clean); err == nil {
			t.Error("something was made of what is no snapshot")
		}
	})
}
