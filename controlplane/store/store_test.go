package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes/scheme"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
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

// objects returns the storage of Secrets or another core type.
func objects(t *testing.T, s *Store, resource string, secret bool, obj, list func() runtime.Object) storage.Interface {
	t.Helper()
	codecs := serializer.NewCodecFactory(scheme.Scheme)
	getter := s.RESTOptions(func(schema.GroupResource, runtime.Object) (Resource, error) {
		return Resource{Codec: codecs.LegacyCodec(corev1.SchemeGroupVersion), Versioner: corev1.SchemeGroupVersion, Prefix: resource, Uncached: true, Secret: secret}, nil
	})
	o, err := getter.GetRESTOptions(corev1.Resource(resource), obj())
	if err != nil {
		t.Fatal(err)
	}
	st, destroy, err := o.Decorator(o.StorageConfig, "/"+resource, func(runtime.Object) (string, error) { return "", errors.New("not cached") }, obj, list, storage.DefaultNamespaceScopedAttr, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(destroy)
	return st
}

func secrets(t *testing.T, s *Store) storage.Interface {
	return objects(t, s, "secrets", true, func() runtime.Object { return &corev1.Secret{} }, func() runtime.Object { return &corev1.SecretList{} })
}

func TestSecretsAreEncryptedOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const word = "open-sesame-4711"
	in := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s"}, Data: map[string][]byte{"k": []byte(word)}}
	var out corev1.Secret
	if err := secrets(t, s).Create(context.Background(), "/secrets/n/s", in, &out, 0); err != nil {
		t.Fatal(err)
	}
	if string(out.Data["k"]) != word {
		t.Errorf("read back %q", out.Data["k"])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if found := grep(t, dir, word); found != "" {
		t.Errorf("the secret is in plain in %s", found)
	}
	if fi, err := os.Stat(filepath.Join(dir, "secrets.key")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", fi, err)
	}

	again := open(t, dir)
	out = corev1.Secret{}
	if err := secrets(t, again).Get(context.Background(), "/secrets/n/s", storage.GetOptions{}, &out); err != nil || string(out.Data["k"]) != word {
		t.Errorf("after reopening: %q, %v", out.Data["k"], err)
	}
}

// Without its key a Secret is an error that says so, and everything else can be read.
func TestLostKey(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	in := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s"}}
	if err := secrets(t, s).Create(context.Background(), "/secrets/n/s", in, &corev1.Secret{}, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "secrets.key")); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if err := secrets(t, again).Get(context.Background(), "/secrets/n/s", storage.GetOptions{}, &corev1.Secret{}); err == nil {
		t.Error("a secret was read without its key")
	}
	if err := again.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBadKeyIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secrets.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "secrets.key") {
		t.Errorf("error %v; want one that names the key file", err)
	}
	// The lock is free again: the next start, with a good key, must not be refused.
	if err := os.Remove(filepath.Join(dir, "secrets.key")); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestNoPortIsOpened(t *testing.T) {
	s := open(t, t.TempDir())
	if n := len(s.etcd.Clients) + len(s.etcd.Peers); n != 0 {
		t.Errorf("a lone member listens on %d sockets", n)
	}
}

// grep returns a file under dir that contains the word.
func grep(t *testing.T, dir, word string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if bytes.Contains(b, []byte(word)) {
			found = p
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRestartsWhileReplaying: a member that replays some hundred entries asks for its election only when Raft knows them applied. Before,
// the library's scan of what is not applied could meet a log that had been compacted meanwhile, and the process ended.
func TestRestartsWhileReplaying(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put := func(n int) {
		t.Helper()
		for range n {
			if _, err := s.client.Put(t.Context(), "/k", "v"); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(300)
	for range 20 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
	}
	put(1)
}
