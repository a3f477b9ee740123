package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/apiserver/pkg/storage/value/encrypt/secretbox"
)

// secretKey has a name, which is in the prefix of every value that it encrypted (upstream's form), so that keys are told apart.
type secretKey struct {
	Name string   `json:"name"`
	Key  [32]byte `json:"-"`
	Text []byte   `json:"key"` // Key, as it is in the file
}

func (k secretKey) prefix() string { return "k8s:enc:secretbox:v1:" + k.Name + ":" }

// ring is the keys of Secrets: the first encrypts, all decrypt. Values written in plain before are still read. Safe for concurrent use.
type ring struct {
	path string
	mu   sync.Mutex // one rotation at a time

	now atomic.Pointer[ringState]
}

type ringState struct {
	keys      []secretKey
	transform value.Transformer
}

// openRing reads the keys in path; without the file, a first key is made (0600).
func openRing(path string) (*ring, error) {
	r := &ring{path: path}
	keys, err := loadKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		keys = []secretKey{newKey("key1")}
		err = r.save(keys)
	}
	if err != nil {
		return nil, fmt.Errorf("encryption keys of Secrets %s: %w", path, err)
	}
	r.use(keys)
	return r, nil
}

func newKey(name string) secretKey {
	k := secretKey{Name: name}
	_, _ = rand.Read(k.Key[:]) // does not fail: the process ends instead
	return k
}

// loadKeys reads a ring. A file of 32 bytes is one key, as it was before there was a ring.
func loadKeys(path string) ([]secretKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var keys []secretKey
	if len(b) == len(secretKey{}.Key) {
		keys = []secretKey{{Name: "key1", Text: b}}
	} else if err := json.Unmarshal(b, &keys); err != nil || len(keys) == 0 {
		return nil, fmt.Errorf("is neither a key nor a list of keys (%d bytes); restore it from a snapshot, or Secrets cannot be read", len(b))
	}
	for i := range keys {
		if len(keys[i].Text) != len(keys[i].Key) || keys[i].Name == "" || strings.ContainsAny(keys[i].Name, ": \n") {
			return nil, fmt.Errorf("key %d (%q) has %d bytes, want %d; restore the file from a snapshot, or Secrets cannot be read", i, keys[i].Name, len(keys[i].Text), len(keys[i].Key))
		}
		copy(keys[i].Key[:], keys[i].Text)
	}
	return keys, nil
}

// save is the commit point of a step of a rotation: the file is the old ring or the new one, whatever happens.
func (r *ring) save(keys []secretKey) error {
	out := make([]secretKey, len(keys))
	for i, k := range keys {
		k.Text = bytes.Clone(k.Key[:])
		out[i] = k
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return writeNew(r.path, b)
}

func (r *ring) use(keys []secretKey) {
	var all []value.PrefixTransformer
	for _, k := range keys {
		all = append(all, value.PrefixTransformer{Prefix: []byte(k.prefix()), Transformer: secretbox.NewSecretboxTransformer(k.Key)})
	}
	all = append(all, value.PrefixTransformer{Transformer: identity.NewEncryptCheckTransformer()})
	r.now.Store(&ringState{keys, value.NewPrefixTransformers(errors.New("value is encrypted with a key that this server does not have"), all...)})
}

// TransformFromStorage implements value.Transformer.
func (r *ring) TransformFromStorage(ctx context.Context, data []byte, c value.Context) ([]byte, bool, error) {
	return r.now.Load().transform.TransformFromStorage(ctx, data, c)
}

// TransformToStorage implements value.Transformer.
func (r *ring) TransformToStorage(ctx context.Context, data []byte, c value.Context) ([]byte, error) {
	return r.now.Load().transform.TransformToStorage(ctx, data, c)
}

// Rotation is what RotateSecretKey did.
type Rotation struct {
	Key       string   // the name of the key that encrypts now
	Rewritten int      // Secrets that were encrypted anew
	Lost      []string // keys of Secrets that no key here decrypts; the older keys are kept while there are any
}

// RotateSecretKey makes a new key, encrypts every Secret with it and forgets the older keys. Interrupted anywhere, every Secret can
// be read, and the next call goes on:
//
//  1. the file has the new key first, then the old: from here on it encrypts;
//  2. each Secret is rewritten, if nobody else has changed it meanwhile (who has, has used the new key);
//  3. when none is left under another key, the file has the new key alone.
func (s *Store) RotateSecretKey(ctx context.Context) (Rotation, error) {
	s.secrets.mu.Lock()
	defer s.secrets.mu.Unlock()
	if n := s.Members(); n > 1 {
		return Rotation{}, fmt.Errorf("the cluster has %d servers: the others would not know the new key", n)
	}
	if s.space.pressure() != roomy {
		return Rotation{}, s.space.refusal("rewriting Secrets")
	}
	keys := s.secrets.now.Load().keys
	if len(keys) == 1 { // else a rotation was interrupted after its first step
		keys = append([]secretKey{newKey(nextName(keys[0].Name))}, keys...)
		if err := s.secrets.save(keys); err != nil {
			return Rotation{}, fmt.Errorf("write the new key: %w", err)
		}
		s.secrets.use(keys)
	}
	out := Rotation{Key: keys[0].Name}
	if err := s.rewriteSecrets(ctx, keys[0].prefix(), &out); err != nil {
		return out, fmt.Errorf("encrypt Secrets with the new key: %w; run it again to go on", err)
	}
	if len(out.Lost) > 0 {
		return out, nil
	}
	if err := s.secrets.save(keys[:1]); err != nil {
		return out, fmt.Errorf("forget the older keys: %w; run it again to go on", err)
	}
	s.secrets.use(keys[:1])
	return out, nil
}

func nextName(name string) string {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "key"))
	if err != nil {
		return name + "-2"
	}
	return "key" + strconv.Itoa(n+1)
}

// secretsPrefix is where Secrets are, and secretsPage how many are read at once.
const (
	secretsPrefix = keyPrefix + "/secrets/"
	secretsPage   = 200
)

// rewriteSecrets goes over all Secrets until a pass finds none that the key with this prefix did not encrypt.
func (s *Store) rewriteSecrets(ctx context.Context, prefix string, out *Rotation) error {
	for again := true; again; {
		again, out.Lost = false, nil
		for from := secretsPrefix; ; {
			page, err := s.client.KV.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(secretsPrefix)), clientv3.WithLimit(secretsPage))
			if err != nil {
				return err
			}
			for _, kv := range page.Kvs {
				if bytes.HasPrefix(kv.Value, []byte(prefix)) {
					continue
				}
				dataCtx := value.DefaultContext(kv.Key)
				plain, _, err := s.secrets.TransformFromStorage(ctx, kv.Value, dataCtx)
				if err != nil {
					out.Lost = append(out.Lost, strings.TrimPrefix(string(kv.Key), secretsPrefix))
					continue
				}
				sealed, err := s.secrets.TransformToStorage(ctx, plain, dataCtx)
				if err != nil {
					return err
				}
				put, err := s.client.Kubernetes.OptimisticPut(ctx, string(kv.Key), sealed, kv.ModRevision, kubernetes.PutOptions{LeaseID: clientv3.LeaseID(kv.Lease)})
				if err != nil {
					return err
				}
				again = true
				if put.Succeeded {
					out.Rewritten++
				}
			}
			if !page.More || len(page.Kvs) == 0 {
				break
			}
			from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		}
	}
	return nil
}

// writeNew writes a file that must be whole or absent after a power cut: a half key would lose every Secret.
func writeNew(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
