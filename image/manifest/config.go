package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"keelson.dev/keelson/image/reference"
)

const maxConfigItems = 10_000 // env variables, labels, arguments: each

// ParseConfig reads an image config that goes with layers layers.
func ParseConfig(b []byte, layers int) (*v1.Image, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("%w: config: %d bytes, at most %d are read", ErrInvalid, len(b), MaxBytes)
	}
	var c v1.Image
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%w: config: %w", ErrInvalid, err)
	}
	if n := len(c.RootFS.DiffIDs); n != layers {
		return nil, fmt.Errorf("%w: config has %d diff_ids, the manifest %d layers", ErrInvalid, n, layers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := reference.CheckDigest(d); err != nil {
			return nil, fmt.Errorf("%w: config: diff_id: %w", ErrInvalid, err)
		}
	}
	return &c, checkRunConfig(&c.Config)
}

// checkRunConfig refuses values that would become something else when written
// into a process's environment or a passwd line (CVE-2022-4318), and counts that
// no real image has. What may be used on the host is decided by the runtime.
func checkRunConfig(c *v1.ImageConfig) error {
	if len(c.Env) > maxConfigItems || len(c.Labels) > maxConfigItems || len(c.Cmd) > maxConfigItems ||
		len(c.Entrypoint) > maxConfigItems || len(c.Volumes) > maxConfigItems || len(c.ExposedPorts) > maxConfigItems {
		return fmt.Errorf("%w: config: more than %d items in a list", ErrInvalid, maxConfigItems)
	}
	for _, e := range c.Env {
		name, value, _ := strings.Cut(e, "=")
		if strings.ContainsRune(e, 0) {
			return fmt.Errorf("%w: config: Env entry %.60q contains a NUL byte", ErrInvalid, e)
		}
		if name == "HOME" && strings.ContainsAny(value, "\n\r") {
			return fmt.Errorf("%w: config: HOME %.60q has a line break", ErrInvalid, value)
		}
	}
	if strings.ContainsFunc(c.User, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("%w: config: User %.60q has a control character or space", ErrInvalid, c.User)
	}
	for _, s := range [][]string{c.Cmd, c.Entrypoint, {c.WorkingDir, c.StopSignal}} {
		for _, a := range s {
			if strings.ContainsRune(a, 0) {
				return fmt.Errorf("%w: config: %.60q contains a NUL byte", ErrInvalid, a)
			}
		}
	}
	return nil
}

// ChainIDs names each layer together with all below it (image-spec, "Layer ChainID").
func ChainIDs(diffIDs []digest.Digest) []digest.Digest {
	return identity.ChainIDs(append([]digest.Digest(nil), diffIDs...))
}
