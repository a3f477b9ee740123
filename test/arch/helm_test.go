package arch

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// differs are modules of which helm needs a newer version than this module has, or whose packages are few and below no others.
var differs = map[string]string{
	"github.com/Masterminds/semver/v3": "helm needs what came later; of Kubernetes no package uses it",
	"github.com/mattn/go-runewidth":    "below helm's own tables alone",
	"github.com/tetratelabs/wazero":    "compiled for helm alone",
}

// versions are the modules that a go.mod names, as they are built.
func versions(t *testing.T, dir string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("read go.mod in %s: %v", dir, err)
	}
	type version struct{ Path, Version string }
	var mod struct {
		Require []version
		Replace []struct{ Old, New version }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatalf("read go.mod in %s: %v", dir, err)
	}
	have := map[string]string{}
	for _, r := range mod.Require {
		have[r.Path] = r.Version
	}
	for _, r := range mod.Replace {
		have[r.Old.Path] = r.New.Version
	}
	return have
}

// TestHelmShares: helm, which a test builds as a module of its own, is compiled of the very versions that this module has: of
// others, all of Kubernetes' libraries would be compiled a second time.
func TestHelmShares(t *testing.T) {
	top, err := root()
	if err != nil {
		t.Fatal(err)
	}
	ours, helms := versions(t, top), versions(t, filepath.Join(top, "test", "helm"))
	shared := 0
	for path, version := range helms {
		if ours[path] == "" || differs[path] != "" {
			continue
		}
		if shared++; version != ours[path] {
			t.Errorf("test/helm has %s %s, this module %s: in test/helm, `go get %s@%s && go mod tidy`, or a replace if helm asks for more", path, version, ours[path], path, ours[path])
		}
	}
	if shared < 50 {
		t.Errorf("%d modules in common: the comparison is broken", shared)
	}
}
