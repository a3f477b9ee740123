package pull

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ledger remembers on disk by which credentials images came to this node, so that a pod without them does not get
// somebody else's private image for its being here already (KEP-2535, HOSTILE IM36). Credentials are kept as salted
// digests. An image without an entry was there before us (imported, preloaded) and is everybody's.
type ledger struct{ dir string }

// entry is one image's record.
type entry struct {
	Image  string   `json:"image"` // the runtime's reference
	Public bool     `json:"public"`
	Salt   string   `json:"salt"`
	Proofs []string `json:"proofs,omitempty"` // digests of credentials that have pulled it
}

func (l ledger) path(image string) string {
	sum := sha256.Sum256([]byte(image))
	return filepath.Join(l.dir, hex.EncodeToString(sum[:])+".json")
}

func (l ledger) read(image string) (e entry, known bool, err error) {
	b, err := os.ReadFile(l.path(image))
	if errors.Is(err, os.ErrNotExist) {
		return entry{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		return entry{}, false, fmt.Errorf("read how image %s was pulled: %w", image, err)
	}
	return e, true, nil
}

// proof is the digest of a credential under an image's salt.
func (e entry) proof(a *runtimeapi.AuthConfig) string {
	b, _ := json.Marshal([]string{e.Salt, a.GetUsername(), a.GetPassword(), a.GetIdentityToken(), a.GetRegistryToken()})
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// record notes that image was pulled with a credential, or by anybody when auth is nil.
func (l ledger) record(image string, auth *runtimeapi.AuthConfig) error {
	if l.dir == "" {
		return nil
	}
	e, known, err := l.read(image)
	if err != nil || !known { // an unreadable entry is replaced: this pull is proof enough
		var salt [16]byte
		if _, err := rand.Read(salt[:]); err != nil {
			return err
		}
		e = entry{Image: image, Salt: hex.EncodeToString(salt[:])}
	}
	switch {
	case e.Public:
		return nil
	case auth == nil:
		e.Public, e.Proofs = true, nil
	case slices.Contains(e.Proofs, e.proof(auth)):
		return nil
	default:
		e.Proofs = append(e.Proofs, e.proof(auth))
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	tmp := l.path(image) + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, l.path(image)) // never half an entry
}

// allows tells whether a pod with these credentials may use an image that is here. An entry that cannot be read
// allows nothing: the pull that follows asks the registry.
func (l ledger) allows(image string, creds []*runtimeapi.AuthConfig) bool {
	if l.dir == "" {
		return true
	}
	e, known, err := l.read(image)
	if err != nil {
		return false
	}
	if !known || e.Public {
		return true
	}
	return slices.ContainsFunc(creds, func(a *runtimeapi.AuthConfig) bool { return slices.Contains(e.Proofs, e.proof(a)) })
}
