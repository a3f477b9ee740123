package reference

import (
	_ "crypto/sha512" // makes sha512 digests known
	"errors"
	"fmt"

	dref "github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// ErrInvalid is wrapped by every error of Parse (InvalidImageName in a pod's status).
var ErrInvalid = errors.New("invalid image reference")

// maxLength bounds what Parse looks at, in bytes: a repository name has at most
// 255, a tag 128, a sha512 digest 135, plus separators.
const maxLength = 255 + 1 + 128 + 1 + 135

// Reference names one image in one repository of one registry.
type Reference struct {
	Host   string        // registry as the user means it: "docker.io", "registry.k8s.io", "localhost:5000"
	Path   string        // repository within it: "library/nginx"
	Tag    string        // "" when Digest is set
	Digest digest.Digest // "" when Tag is set
}

// Parse normalises s as Docker and containerd do: a missing host is docker.io, a
// single-word Docker Hub name lives under library/, a missing tag is latest, and
// with both a tag and a digest the digest alone decides. Only sha256 and sha512
// digests are known. The error wraps ErrInvalid.
func Parse(s string) (Reference, error) {
	if len(s) > maxLength {
		return Reference{}, fmt.Errorf("%w %.40q...: longer than %d bytes", ErrInvalid, s, maxLength)
	}
	named, err := dref.ParseDockerRef(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %q: %s", ErrInvalid, s, err)
	}
	r := Reference{Host: dref.Domain(named), Path: dref.Path(named)}
	switch n := named.(type) {
	case dref.Digested:
		r.Digest = n.Digest()
		if err := CheckDigest(r.Digest); err != nil {
			return Reference{}, fmt.Errorf("%w %q: %w", ErrInvalid, s, err)
		}
	case dref.Tagged:
		r.Tag = n.Tag()
	}
	return r, nil
}

// CheckDigest accepts well-formed sha256 and sha512 digests, nothing else: the
// digest becomes a file name and a URL path, so its form is a safety line.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: digest %.80q: %w", ErrInvalid, string(d), err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("%w: digest algorithm %q: only sha256 and sha512 are supported", ErrInvalid, a)
	}
	return nil
}

// Name is host and path without tag or digest: "docker.io/library/nginx".
func (r Reference) Name() string { return r.Host + "/" + r.Path }

// Target is what a registry is asked for: the digest or the tag.
func (r Reference) Target() string {
	if r.Digest != "" {
		return string(r.Digest)
	}
	return r.Tag
}

// String is the normal form: name:tag or name@digest.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Name() + "@" + string(r.Digest)
	}
	return r.Name() + ":" + r.Tag
}

// WithDigest is the same repository at digest d.
func (r Reference) WithDigest(d digest.Digest) Reference {
	return Reference{Host: r.Host, Path: r.Path, Digest: d}
}
