package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"keelson.dev/keelson/image/reference"
)

// Limits of what is read (HOSTILE IM12).
const (
	MaxBytes  = 4 << 20 // of one index, manifest or config
	MaxLayers = 500     // overlayfs stacks no more lower directories than that
	maxRefs   = 4096    // manifests in one index
	maxLayer  = 1 << 40 // bytes, compressed, that a descriptor may promise
)

// ErrInvalid is wrapped by errors about a document that is malformed, ambiguous
// or over a limit; ErrUnsupported by those about a kind that is not supported.
var (
	ErrInvalid     = errors.New("invalid image document")
	ErrUnsupported = errors.New("unsupported media type")
)

// Media types beyond those in image-spec.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// Accept lists the types to ask a registry for, in order of preference.
func Accept() []string {
	return []string{v1.MediaTypeImageIndex, dockerList, v1.MediaTypeImageManifest, dockerManifest}
}

// Document is an Index or a Manifest: exactly one is set.
type Document struct {
	Index    *v1.Index
	Manifest *v1.Manifest
}

// Parse reads an index or manifest. mediaType is what the transport or the
// parent descriptor said; the document must not contradict it.
func Parse(mediaType string, b []byte) (Document, error) {
	if len(b) > MaxBytes {
		return Document{}, fmt.Errorf("%w: %d bytes, at most %d are read", ErrInvalid, len(b), MaxBytes)
	}
	base, _, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return Document{}, fmt.Errorf("%w: media type %.80q: %w", ErrUnsupported, mediaType, err)
	}
	switch base {
	case v1.MediaTypeImageIndex, dockerList, v1.MediaTypeImageManifest, dockerManifest:
	case "application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws":
		return Document{}, fmt.Errorf("%w %q: Docker schema 1 is no longer supported: push the image again with a current tool", ErrUnsupported, base)
	default:
		return Document{}, fmt.Errorf("%w %.80q for an image manifest", ErrUnsupported, base)
	}
	if err := unambiguous(base, b); err != nil {
		return Document{}, err
	}
	if base == v1.MediaTypeImageIndex || base == dockerList {
		ix, err := parseIndex(b)
		return Document{Index: ix}, err
	}
	m, err := parseManifest(b)
	return Document{Manifest: m}, err
}

// unambiguous refuses a document that two readers could read as two things:
// "manifests" beside "layers" or "config", or a mediaType of its own that differs
// from what came with it. encoding/json would match keys without regard to case
// and let the last of two win, so keys are looked at first.
func unambiguous(base string, b []byte) error {
	keys, err := topKeys(b)
	if err != nil {
		return err
	}
	_, list := keys["manifests"]
	_, layers := keys["layers"]
	_, config := keys["config"]
	_, fs := keys["fslayers"]
	if list && (layers || config) || fs && (list || layers) {
		return fmt.Errorf("%w: ambiguous: it is both an index and a manifest", ErrInvalid)
	}
	if raw, ok := keys["mediatype"]; ok {
		var own string
		if err := json.Unmarshal(raw, &own); err != nil {
			return fmt.Errorf("%w: mediaType: %w", ErrInvalid, err)
		}
		if own != "" && own != base {
			return fmt.Errorf("%w: ambiguous: it came as %q but says mediaType %.80q", ErrInvalid, base, own)
		}
	}
	return nil
}

// topKeys reads the members of the outermost object, keys in lower case; two
// equal keys are an error.
func topKeys(b []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%w: not a JSON object", ErrInvalid)
	}
	keys := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		k := strings.ToLower(t.(string))
		if _, twice := keys[k]; twice {
			return nil, fmt.Errorf("%w: ambiguous: member %.80q occurs twice", ErrInvalid, k)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		keys[k] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("%w: bytes after the JSON object", ErrInvalid)
	}
	return keys, nil
}

func parseIndex(b []byte) (*v1.Index, error) {
	var ix v1.Index
	if err := json.Unmarshal(b, &ix); err != nil {
		return nil, fmt.Errorf("%w: index: %w", ErrInvalid, err)
	}
	if ix.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: index: schemaVersion %d, want 2", ErrInvalid, ix.SchemaVersion)
	}
	if len(ix.Manifests) > maxRefs {
		return nil, fmt.Errorf("%w: index: %d manifests, at most %d are read", ErrInvalid, len(ix.Manifests), maxRefs)
	}
	for _, d := range ix.Manifests {
		if err := checkDescriptor("manifest", d, MaxBytes); err != nil {
			return nil, err
		}
	}
	return &ix, nil
}

func parseManifest(b []byte) (*v1.Manifest, error) {
	var m v1.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrInvalid, err)
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: manifest: schemaVersion %d, want 2", ErrInvalid, m.SchemaVersion)
	}
	if len(m.Layers) > MaxLayers {
		return nil, fmt.Errorf("%w: manifest: %d layers, at most %d can be mounted", ErrInvalid, len(m.Layers), MaxLayers)
	}
	if t := m.Config.MediaType; t != v1.MediaTypeImageConfig && t != dockerConfig {
		return nil, fmt.Errorf("%w %.80q for an image config: this is an artifact, not a container image", ErrUnsupported, t)
	}
	if err := checkDescriptor("config", m.Config, MaxBytes); err != nil {
		return nil, err
	}
	for _, d := range m.Layers {
		if err := checkDescriptor("layer", d, maxLayer); err != nil {
			return nil, err
		}
		if err := CheckLayer(d.MediaType); err != nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
	}
	return &m, nil
}

func checkDescriptor(what string, d v1.Descriptor, limit int64) error {
	if err := reference.CheckDigest(d.Digest); err != nil {
		return fmt.Errorf("%w: %s descriptor: %w", ErrInvalid, what, err)
	}
	if d.Size < 0 || d.Size > limit {
		return fmt.Errorf("%w: %s %s: size %d, want 0 to %d", ErrInvalid, what, d.Digest, d.Size, limit)
	}
	return nil
}

// CheckLayer says whether a layer of this media type can be unpacked: plain,
// gzip or zstd tar. Foreign (nondistributable) layers are refused: their bytes
// come from a URL that the image picks.
func CheckLayer(mediaType string) error {
	switch mediaType {
	case v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd,
		dockerLayer, dockerLayer + ".gzip", dockerLayer + ".zstd":
		return nil
	}
	if strings.Contains(mediaType, ".foreign.") || strings.Contains(mediaType, ".nondistributable.") {
		return fmt.Errorf("%w %.120q: foreign layers are not fetched", ErrUnsupported, mediaType)
	}
	return fmt.Errorf("%w %.120q for a layer: plain, gzip and zstd tar are supported", ErrUnsupported, mediaType)
}
