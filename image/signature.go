package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"keelson.dev/keelson/image/policy"
	"keelson.dev/keelson/image/reference"
	"keelson.dev/keelson/image/registry"
)

// ErrSignature is of a pull that Config.Policy refuses.
var ErrSignature = policy.ErrRefused

const (
	maxSignatures     = 64
	maxSignatureBytes = 64 << 10 // of one payload
	signatureNote     = "dev.cosignproject.cosign/signature"
)

// allowed says whether the policy lets the image be used: what the name points at
// must be signed, or this platform's manifest. It is asked at every pull, before
// the content is.
func (p *puller) allowed(ctx context.Context, auth *Auth) error {
	rules, err := policy.Load(p.store.cfg.Policy)
	if err != nil {
		return err
	}
	required := rules.Of(p.ref)
	signed := slices.ContainsFunc(required, policy.Requirement.Signed)
	var errs []error
	for _, d := range slices.Compact([]digest.Digest{p.target.Digest, p.desc.Digest}) {
		var found []policy.Signature
		if signed {
			if found, err = p.store.signatures(ctx, p.ref, d, auth); err != nil {
				return fmt.Errorf("%w: look for the signatures of %s: %w", ErrSignature, d, err)
			}
		}
		var err error
		for _, r := range required {
			err = errors.Join(err, r.Check(p.ref, d, found))
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// signatures reads what cosign left beside the document d: an image of its own,
// tagged with d's digest, each of whose layers is a payload that is signed.
func (s *Store) signatures(ctx context.Context, ref reference.Reference, d digest.Digest, auth *Auth) ([]policy.Signature, error) {
	at := reference.Reference{Host: ref.Host, Path: ref.Path, Tag: strings.ReplaceAll(string(d), ":", "-") + ".sig"}
	repo, err := registry.Open(s.cfg.Registry, at, auth)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	_, body, err := repo.Resolve(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc v1.Manifest // nothing of it is believed but what a signature proves
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	var out []policy.Signature
	for _, l := range doc.Layers[:min(len(doc.Layers), maxSignatures)] {
		bytes, err := base64.StdEncoding.DecodeString(l.Annotations[signatureNote])
		if err != nil || len(bytes) == 0 || l.Size <= 0 || l.Size > maxSignatureBytes || reference.CheckDigest(l.Digest) != nil {
			continue
		}
		blob := repo.Blob(ctx, l, 0)
		payload, err := io.ReadAll(io.LimitReader(blob, maxSignatureBytes))
		blob.Close()
		if err != nil {
			return nil, err
		}
		out = append(out, policy.Signature{Payload: payload, Bytes: bytes})
	}
	return out, nil
}
