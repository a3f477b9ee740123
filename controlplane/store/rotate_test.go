package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage"
)

func makeSecrets(t *testing.T, s *Store, n int) {
	t.Helper()
	st := secrets(t, s)
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		in := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Data: map[string][]byte{"k": []byte(name)}}
		if err := st.Create(t.Context(), "/secrets/n/"+name, in, &corev1.Secret{}, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// readable complains of Secrets that cannot be read.
func readable(t *testing.T, s *Store, n int) {
	t.Helper()
	st := secrets(t, s)
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		var out corev1.Secret
		if err := st.Get(t.Context(), "/secrets/n/"+name, storage.GetOptions{}, &out); err != nil || string(out.Data["k"]) != name {
			t.Errorf("%s: %q, %v", name, out.Data["k"], err)
		}
	}
}

func underKey(t *testing.T, s *Store, name string) (n int) {
	t.Helper()
	r, err := s.client.KV.Get(t.Context(), secretsPrefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range r.Kvs {
		if strings.HasPrefix(string(kv.Value), secretKey{Name: name}.prefix()) {
			n++
		}
	}
	return n
}

// A rotation that is cut off at each step leaves every Secret readable after a restart, and the next one ends it.
func TestHostile_RA23(t *testing.T) {
	const n = 12
	for name, cut := range map[string]func(*testing.T, *Store){
		"before": func(*testing.T, *Store) {},
		"the new key is half written": func(t *testing.T, s *Store) {
			if err := os.WriteFile(s.secrets.path+".new", []byte("[{\"na"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"the new key is saved": func(t *testing.T, s *Store) {
			keys := s.secrets.now.Load().keys
			if err := s.secrets.save(append([]secretKey{newKey("key2")}, keys...)); err != nil {
				t.Fatal(err)
			}
		},
		"half of the Secrets are rewritten": func(t *testing.T, s *Store) {
			keys := append([]secretKey{newKey("key2")}, s.secrets.now.Load().keys...)
			if err := s.secrets.save(keys); err != nil {
				t.Fatal(err)
			}
			s.secrets.use(keys)
			st := secrets(t, s)
			for i := range n / 2 { // what a client changes meanwhile is under the new key too
				name := fmt.Sprintf("s%d", i)
				if err := st.Delete(t.Context(), "/secrets/n/"+name, &corev1.Secret{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			makeSecrets(t, s, n/2)
		},
		"all are, the old key is still there": func(t *testing.T, s *Store) {
			keys := append([]secretKey{newKey("key2")}, s.secrets.now.Load().keys...)
			if err := s.secrets.save(keys); err != nil {
				t.Fatal(err)
			}
			s.secrets.use(keys)
			if err := s.rewriteSecrets(t.Context(), keys[0].prefix(), &Rotation{}); err != nil {
				t.Fatal(err)
			}
		},
		"its context ended": func(t *testing.T, s *Store) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := s.RotateSecretKey(ctx); err == nil {
				t.Error("a cancelled rotation ended well")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			makeSecrets(t, s, n)
			cut(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, dir)
			readable(t, again, n)
			r, err := again.RotateSecretKey(t.Context())
			if err != nil || len(r.Lost) > 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			if got := underKey(t, again, r.Key); got != n {
				t.Errorf("%d of %d are under %s", got, n, r.Key)
			}
			if keys := again.secrets.now.Load().keys; len(keys) != 1 || keys[0].Name != "key2" {
				t.Errorf("keys %v are left", keys)
			}
			readable(t, again, n)
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			readable(t, open(t, dir), n)
		})
	}
}

// A key file of before there was a ring is read, and rotated away.
func TestOldKeyFile(t *testing.T) {
	dir := t.TempDir()
	key := newKey("key1")
	if err := os.WriteFile(filepath.Join(dir, "secrets.key"), key.Key[:], 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	<-s.Ready()
	makeSecrets(t, s, 2)
	if underKey(t, s, "key1") != 2 {
		t.Error("the old key does not encrypt")
	}
	if _, err := s.RotateSecretKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	readable(t, s, 2)
}

// A Secret whose key is lost is named, the others are rotated, and the older keys stay.
func TestRotationWithLostSecret(t *testing.T) {
	s := open(t, t.TempDir())
	makeSecrets(t, s, 3)
	if _, err := s.client.KV.Put(t.Context(), secretsPrefix+"n/lost", secretKey{Name: "gone"}.prefix()+"xxxx"); err != nil {
		t.Fatal(err)
	}
	r, err := s.RotateSecretKey(t.Context())
	if err != nil || len(r.Lost) != 1 || r.Lost[0] != "n/lost" || r.Rewritten != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if len(s.secrets.now.Load().keys) != 2 {
		t.Error("the older key is gone while a Secret could not be read")
	}
	readable(t, s, 3)
}
