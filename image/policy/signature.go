package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"keelson.dev/keelson/image/reference"
)

// Signature is one that was found with an image: cosign's "simple signing".
type Signature struct {
	Payload []byte // what is signed
	Bytes   []byte
}

// Check says whether the requirement is met by ref, which leads to the document
// target, with the signatures that were found.
func (r Requirement) Check(ref reference.Reference, target digest.Digest, found []Signature) error {
	switch r.kind {
	case accept:
		return nil
	case reject:
		return fmt.Errorf("%w: the policy for %s is %q", ErrRefused, ref, reject)
	}
	if len(found) == 0 {
		return fmt.Errorf("%w: %s (%s) has no signature, and one is required", ErrRefused, ref, target)
	}
	var errs []error
	for _, s := range found {
		err := r.checkOne(ref, target, s)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("%w: %s (%s) has no good signature: %w", ErrRefused, ref, target, errors.Join(errs...))
}

func (r Requirement) checkOne(ref reference.Reference, target digest.Digest, s Signature) error {
	good := false
	for _, key := range r.keys {
		good = good || verify(key, s)
	}
	if !good {
		return errors.New("a signature is not of the policy's key")
	}
	var said struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest digest.Digest `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(s.Payload, &said); err != nil {
		return fmt.Errorf("a signature's payload: %w", err)
	}
	c := said.Critical
	if c.Type != "cosign container image signature" {
		return fmt.Errorf("a signature is of type %.80q", c.Type)
	}
	if c.Image.Digest != target {
		return fmt.Errorf("a signature is of %.80q", c.Image.Digest)
	}
	if !r.matches(ref, c.Identity.Reference) {
		return fmt.Errorf("a signature is of the name %.200q, which is another (%s)", c.Identity.Reference, r.identity)
	}
	return nil
}

func verify(key crypto.PublicKey, s Signature) bool {
	sum := sha256.Sum256(s.Payload)
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum[:], s.Bytes)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], s.Bytes) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, s.Payload, s.Bytes)
	}
	return false
}

// matches compares the name that was signed with the one that is asked for.
func (r Requirement) matches(ref reference.Reference, signed string) bool {
	name, err := reference.Parse(signed)
	if err != nil {
		return false
	}
	repository := name.Name() == ref.Name()
	exact := name.String() == ref.String() && (ref.Digest != "" || strings.HasSuffix(signed, ":"+ref.Tag))
	switch r.identity {
	case matchRepository:
		return repository
	case matchExact:
		return exact
	default:
		return exact || repository && ref.Digest != ""
	}
}
