package image_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"keelson.dev/keelson/image"
)

// signer signs as cosign does with a key pair of its own.
type signer struct {
	crypto.Signer
	public string // path
}

func newSigner(t *testing.T, key crypto.Signer, err error) signer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := signer{key, filepath.Join(t.TempDir(), "cosign.pub")}
	if err := os.WriteFile(s.public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s signer) sign(t *testing.T, payload []byte) []byte {
	t.Helper()
	message, opts := payload, crypto.SignerOpts(crypto.Hash(0))
	if _, is := s.Signer.(ed25519.PrivateKey); !is {
		sum := sha256.Sum256(payload)
		message, opts = sum[:], crypto.SHA256
	}
	out, err := s.Signer.Sign(rand.Reader, message, opts)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// serveSignature puts a signature of digest, as one of name, beside the image at.
func (b *bench) serveSignature(at, digest, name, payloadOf string, by signer) {
	b.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, name, payloadOf)
	h, err := v1.NewHash(b.reg.AddBlob(payload))
	if err != nil {
		b.Fatal(err)
	}
	doc, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{{
		MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Digest: h, Size: int64(len(payload)),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(by.sign(b.T, payload))},
	}}})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := b.reg.AddDocument(at+":"+strings.ReplaceAll(digest, ":", "-")+".sig", string(types.OCIManifestSchema1), doc); err != nil {
		b.Fatal(err)
	}
}

// TestHostile_IM39: where a signature is required, an image without a good one is
// not pulled, and the error says why.
func TestHostile_IM39(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ours := newSigner(t, ec, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	theirs := newSigner(t, ed, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	old := newSigner(t, rs, err)

	b := newBench(t)
	file := b.config().Policy
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	signed := func(identity string, keys ...string) string {
		list, err := json.Marshal(keys)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`[{"type":"sigstoreSigned","keyPaths":%s,"signedIdentity":{"type":%q}}]`, list, identity)
	}
	docker := func(scope, list string) string {
		return fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{%q:%s}}}`, scope, list)
	}
	put := func(name string) (ref, digest string) {
		img, err := tiny(name)
		return name + ":1", b.add(name+":1", img, err)
	}
	const host = "gcr.io"
	need := docker(host, signed("matchRepository", ours.public, old.public))

	plain, plainDigest := put("gcr.io/team/plain")
	write(need)
	b.fails(plain, nil, image.ErrSignature, "no signature")
	b.serveSignature("gcr.io/team/plain", plainDigest, "gcr.io/team/plain", plainDigest, theirs)
	b.fails(plain, nil, image.ErrSignature, "not of the policy's key")
	b.serveSignature("gcr.io/team/plain", plainDigest, "gcr.io/team/plain", "sha256:"+strings.Repeat("0", 64), ours)
	b.fails(plain, nil, image.ErrSignature, "a signature is of")
	b.serveSignature("gcr.io/team/plain", plainDigest, "gcr.io/team/else", plainDigest, ours)
	b.fails(plain, nil, image.ErrSignature, "which is another")

	for text, want := range map[string]string{
		docker(host+"/else", signed("matchRepository", ours.public)): "reject",
		docker(host, `[{"type":"signedBy","keyPath":"/x"}]`):         "signedBy",
		docker(host, `[{"type":"sigstoreSigned"}]`):                  "without a key",
		docker(host, signed("matchRepository", file)):                "not PEM",
		docker(host, signed("remapIdentity", ours.public)):           "remapIdentity",
		`{"default":[]}`: "no requirement",
		`{`:              "EOF",
	} {
		write(text)
		b.fails(plain, nil, image.ErrSignature, want)
	}

	// A good one of either key lets it in; by digest the default identity does too.
	for name, by := range map[string]signer{"gcr.io/team/new": ours, "gcr.io/team/old": old} {
		ref, digest := put(name)
		b.serveSignature(name, digest, name, digest, by)
		write(docker(host, signed("matchExact", ours.public, old.public)))
		b.fails(ref, nil, image.ErrSignature, "which is another")
		write(need)
		b.pull(ref)
		write(docker(host+"/team", signed("matchRepoDigestOrExact", ours.public, old.public)))
		b.pull(name + "@" + digest)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b.pull(plain) // nothing is required
}
