package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"keelson.dev/keelson/image/reference"
)

const maxDockerConfig = 4 << 20 // bytes

// dockerAuth looks a registry up in Docker's config.json files, in order; files
// that do not exist are passed over. Credential helpers are not run: a node's
// kubelet brings such credentials with the request.
func dockerAuth(files []string, ref reference.Reference) (Auth, error) {
	for _, file := range files {
		b, err := readLimited(file, maxDockerConfig)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Auth{}, fmt.Errorf("registry credentials: %w", err)
		}
		a, ok, err := findAuth(b, ref)
		if err != nil {
			return Auth{}, fmt.Errorf("registry credentials: %s: not a Docker config file", file) // the cause may quote secrets
		}
		if ok {
			return a, nil
		}
	}
	return Auth{}, nil
}

func readLimited(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, limit)
	}
	return b, err
}

// findAuth reads the "auths" member; an entry for host/path-prefix beats one for
// the host alone.
func findAuth(b []byte, ref reference.Reference) (Auth, bool, error) {
	var doc struct {
		Auths map[string]struct {
			Username      string `json:"username"`
			Password      string `json:"password"`
			Auth          string `json:"auth"`
			IdentityToken string `json:"identitytoken"`
			RegistryToken string `json:"registrytoken"`
		} `json:"auths"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return Auth{}, false, err
	}
	var best Auth
	bestLen := -1
	for key, e := range doc.Auths {
		n := matchServer(key, ref)
		if n > bestLen {
			best = Auth{Username: e.Username, Password: e.Password, Auth: e.Auth, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
			bestLen = n
		}
	}
	return best, bestLen >= 0, nil
}

// matchServer is -1 when key is for something else, else how much of ref it names.
func matchServer(key string, ref reference.Reference) int {
	host := serverHost(key)
	if host != ref.Host {
		return -1
	}
	prefix := pathOf(key)
	switch {
	case prefix == "" || prefix == "v1" || prefix == "v2":
		return 0
	case ref.Path == prefix || len(ref.Path) > len(prefix) && ref.Path[:len(prefix)+1] == prefix+"/":
		return len(prefix)
	}
	return -1
}
