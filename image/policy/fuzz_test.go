package policy

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"testing"

	"github.com/opencontainers/go-digest"

	"keelson.dev/keelson/image/reference"
)

// FuzzPolicy: a policy that can be followed requires something of every image; an
// empty list of requirements would be met by all.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"registry.test/a":[{"type":"insecureAcceptAnything"}],"":[{"type":"sigstoreSigned","keyData":"AAAA"}]}}}`))
	f.Add([]byte(`{"default":[{"type":"sigstoreSigned","keyPath":"/nowhere","signedIdentity":{"type":"matchExact"}}]}{}`))
	var refs []reference.Reference
	for _, name := range []string{"registry.test/a/b:1", "registry.test/a", "localhost:5000/x@sha256:" + string(bytes.Repeat([]byte("0"), 64))} {
		ref, err := reference.Parse(name)
		if err != nil {
			f.Fatal(err)
		}
		refs = append(refs, ref)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parse(text)
		if err != nil {
			return
		}
		for _, ref := range refs {
			if len(p.Of(ref)) == 0 {
				t.Errorf("nothing is required of %s", ref)
			}
		}
	})
}

// FuzzSignature: what a registry hands out as a signature is one only with the
// policy's key, and of that image only if it says so.
func FuzzSignature(f *testing.F) {
	ref, err := reference.Parse("registry.test/a:1")
	if err != nil {
		f.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	required := Requirement{kind: sigstore, identity: matchDefault, keys: []crypto.PublicKey{private.Public()}}
	target := digest.FromString("target")
	good := []byte(`{"critical":{"identity":{"docker-reference":"registry.test/a:1"},"image":{"docker-manifest-digest":"` + target.String() + `"},"type":"cosign container image signature"}}`)
	if err := required.Check(ref, target, []Signature{{good, ed25519.Sign(private, good)}}); err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte("no signature"))
	f.Add([]byte(`{"critical":{"image":{}}}`), []byte{})
	f.Fuzz(func(t *testing.T, payload, bytesOf []byte) {
		if !ed25519.Verify(private.Public().(ed25519.PublicKey), payload, bytesOf) && required.Check(ref, target, []Signature{{payload, bytesOf}}) == nil {
			t.Errorf("%q is no signature of %q", bytesOf, payload)
		}
		signed := []Signature{{payload, ed25519.Sign(private, payload)}}
		if required.Check(ref, target, signed) == nil && required.Check(ref, digest.FromString("another"), signed) == nil {
			t.Errorf("a signed %q is taken for one of any image", payload)
		}
	})
}
