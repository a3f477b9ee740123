package cri

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUnloadAppArmor: the profile goes with the last that it confines, and a
// host without it, or without AppArmor, is left as it is.
func TestUnloadAppArmor(t *testing.T) {
	for name, c := range map[string]struct{ loaded, running, want string }{
		"unused":            {"firefox (enforce)\nkeelson-default (enforce)\n", "firefox (enforce)\n", AppArmorProfile},
		"in use":            {"keelson-default (enforce)\n", "keelson-default (enforce)\n", ""},
		"of another name":   {"keelson-default-2 (enforce)\n", "unconfined\n", ""},
		"used by its like":  {"keelson-default (enforce)\nkeelson-default-2 (enforce)\n", "keelson-default-2 (enforce)\n", AppArmorProfile},
		"a host without it": {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, proc := t.TempDir(), t.TempDir()
			if err := os.MkdirAll(filepath.Join(proc, "17", "attr"), 0o755); err != nil {
				t.Fatal(err)
			}
			for path, text := range map[string]string{
				filepath.Join(dir, ".remove"): "", filepath.Join(dir, "profiles"): c.loaded, filepath.Join(proc, "17", "attr", "current"): c.running,
			} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := unloadAppArmor(dir, proc); err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, ".remove")); err != nil || string(got) != c.want {
				t.Errorf("unloaded %q, want %q; %v", got, c.want, err)
			}
		})
	}
	if err := unloadAppArmor(filepath.Join(t.TempDir(), "none"), t.TempDir()); err != nil {
		t.Errorf("without AppArmor: %v", err)
	}
}
