package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apiserver/pkg/storage/value"
)

// FuzzRing: a file of keys that is anything is keys or an error, and what they encrypt they decrypt; what they did not is an error or plain.
func FuzzRing(f *testing.F) {
	f.Add(bytes.Repeat([]byte{7}, 32), []byte("k8s:enc:secretbox:v1:key1:short"))
	f.Add([]byte(`[{"name":"key2","key":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="},{"name":"key1","key":"CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg="}]`), []byte("k8s:enc:secretbox:v1:key2:"))
	f.Add([]byte(`[{"name":"a:b","key":""}]`), []byte("k8s:enc:"))
	f.Add([]byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, file, stored []byte) {
		path := filepath.Join(t.TempDir(), "secrets.key")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := openRing(path)
		if err != nil {
			return
		}
		c := value.DefaultContext("/registry/secrets/n/s")
		_, _, _ = r.TransformFromStorage(t.Context(), stored, c)
		sealed, err := r.TransformToStorage(t.Context(), stored, c)
		if err != nil {
			t.Fatal(err)
		}
		plain, _, err := r.TransformFromStorage(t.Context(), sealed, c)
		if err != nil || !bytes.Equal(plain, stored) {
			t.Errorf("sealed %q, opened %q, %v", stored, plain, err)
		}
		if len(stored) > 8 && bytes.Contains(sealed[len(r.now.Load().keys[0].prefix()):], stored) {
			t.Errorf("%q is in plain", stored)
		}
	})
}
