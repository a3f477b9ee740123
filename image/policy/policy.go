package policy

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"keelson.dev/keelson/image/reference"
)

// ErrRefused is wrapped by the errors about images that a policy does not allow,
// and about a policy that cannot be followed.
var ErrRefused = errors.New("refused by the image policy")

// maxBytes bounds a policy and a key.
const maxBytes = 1 << 20

// Policy is a policy.json with its keys. The zero value accepts everything.
type Policy struct {
	fallback []Requirement
	scopes   map[string][]Requirement
}

// Requirement is one condition on an image.
type Requirement struct {
	kind     string
	identity string
	keys     []crypto.PublicKey
}

// Signed says that the requirement is met by signatures.
func (r Requirement) Signed() bool { return r.kind == sigstore }

const (
	accept   = "insecureAcceptAnything"
	reject   = "reject"
	sigstore = "sigstoreSigned"

	matchExact      = "matchExact"
	matchRepository = "matchRepository"
	matchDefault    = "matchRepoDigestOrExact"
)

// Load reads the policy in file. Where there is none, everything is accepted.
func Load(file string) (*Policy, error) {
	b, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &Policy{}, nil
	}
	if err == nil {
		var p *Policy
		if p, err = parse(b); err == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: %s cannot be followed: %w", ErrRefused, file, err)
}

func read(file string) ([]byte, error) {
	if s, err := os.Stat(file); err != nil || s.Size() > maxBytes {
		return nil, errors.Join(err, tooLarge(s))
	}
	return os.ReadFile(file)
}

func tooLarge(s fs.FileInfo) error {
	if s == nil {
		return nil
	}
	return fmt.Errorf("%d bytes, at most %d are read", s.Size(), maxBytes)
}

// written is a requirement as it is written.
type written struct {
	Type           string   `json:"type"`
	KeyPath        string   `json:"keyPath"`
	KeyPaths       []string `json:"keyPaths"`
	KeyData        []byte   `json:"keyData"` // base64
	KeyDatas       [][]byte `json:"keyDatas"`
	SignedIdentity struct {
		Type string `json:"type"`
	} `json:"signedIdentity"`
}

func parse(b []byte) (*Policy, error) {
	var file struct {
		Default    []written                       `json:"default"`
		Transports map[string]map[string][]written `json:"transports"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&file); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("there is more after the policy")
	}
	if len(file.Default) == 0 {
		return nil, errors.New(`"default" has no requirement`)
	}
	p := &Policy{scopes: map[string][]Requirement{}}
	var err error
	if p.fallback, err = requirements(file.Default); err != nil {
		return nil, fmt.Errorf("default: %w", err)
	}
	for scope, list := range file.Transports["docker"] { // the others are of tools that we are not
		if p.scopes[scope], err = requirements(list); err != nil {
			return nil, fmt.Errorf("scope %q: %w", scope, err)
		}
	}
	return p, nil
}

func requirements(list []written) ([]Requirement, error) {
	if len(list) == 0 {
		return nil, errors.New("no requirement")
	}
	var out []Requirement
	for _, w := range list {
		r := Requirement{kind: w.Type, identity: w.SignedIdentity.Type}
		switch w.Type {
		case accept, reject:
		case sigstore:
			var err error
			if r.keys, err = keys(w); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("requirement %q is not supported", w.Type)
		}
		switch r.identity {
		case matchExact, matchRepository, matchDefault:
		case "":
			r.identity = matchDefault
		default:
			return nil, fmt.Errorf("signedIdentity %q is not supported", r.identity)
		}
		out = append(out, r)
	}
	return out, nil
}

func keys(w written) ([]crypto.PublicKey, error) {
	all := w.KeyDatas
	if w.KeyData != nil {
		all = append(all, w.KeyData)
	}
	files := w.KeyPaths
	if w.KeyPath != "" {
		files = append(files, w.KeyPath)
	}
	for _, f := range files {
		b, err := read(f)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	if len(all) == 0 {
		return nil, errors.New("sigstoreSigned without a key (keyPath, keyPaths, keyData): signatures without one are not supported")
	}
	var out []crypto.PublicKey
	for _, b := range all {
		block, _ := pem.Decode(b)
		if block == nil {
			return nil, errors.New("a key is not PEM")
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		out = append(out, key)
	}
	return out, nil
}

// Of is what is required of ref's image: all of it must be met.
func (p *Policy) Of(ref reference.Reference) []Requirement {
	for _, scope := range scopesOf(ref) {
		if list, ok := p.scopes[scope]; ok {
			return list
		}
	}
	return p.fallback
}

// scopesOf lists the scopes that ref is in, the narrowest first.
func scopesOf(ref reference.Reference) []string {
	out := []string{ref.String()}
	for name := ref.Name(); ; {
		out = append(out, name)
		cut := strings.LastIndexByte(name, '/')
		if cut < 0 {
			break
		}
		name = name[:cut]
	}
	for host := ref.Host; ; {
		_, rest, found := strings.Cut(host, ".")
		if !found {
			return append(out, "")
		}
		out = append(out, "*."+rest)
		host = rest
	}
}
