package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/apiserver/pkg/storage/value/encrypt/secretbox"
)

// keyName is in the prefix of every encrypted value, upstream's form, so that a second key can be told from the first.
const keyName = "key1"

// secretTransformer encrypts with the key in path, which is made (0600) if it does not exist.
// Values written in plain before are still read.
func secretTransformer(path string) (value.Transformer, error) {
	key, err := loadKey(path)
	if err != nil {
		return nil, fmt.Errorf("encryption key of Secrets %s: %w", path, err)
	}
	return value.NewPrefixTransformers(
		errors.New("value is encrypted with a key that this server does not have"),
		value.PrefixTransformer{Prefix: []byte("k8s:enc:secretbox:v1:" + keyName + ":"), Transformer: secretbox.NewSecretboxTransformer(key)},
		value.PrefixTransformer{Transformer: identity.NewEncryptCheckTransformer()},
	), nil
}

func loadKey(path string) (key [32]byte, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := rand.Read(key[:]); err != nil {
			return key, err
		}
		return key, writeNew(path, key[:])
	}
	if err != nil {
		return key, err
	}
	if len(b) != len(key) {
		return key, fmt.Errorf("has %d bytes, want %d; restore it from a backup, or Secrets cannot be read", len(b), len(key))
	}
	copy(key[:], b)
	return key, nil
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
	return os.Rename(tmp, path)
}
