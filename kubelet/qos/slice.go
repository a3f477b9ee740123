package qos

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/systemd"
)

// group is the path of a cgroup below kubepods; empty names are left out. Under the systemd driver each level's slice
// carries the names of all above it, and a dash within a name is an underscore: the pod 1-2 of the Burstable class is
// /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice.
func (t *Tree) group(names ...string) string {
	names = append([]string{t.cfg.Root, "kubepods"}, names...)
	if !t.cfg.Systemd {
		return path.Join(names...)
	}
	at, prefix := "/", ""
	for _, name := range strings.Split(path.Join(names...), "/") {
		if name == "" {
			continue
		}
		prefix += strings.ReplaceAll(name, "-", "_")
		at = path.Join(at, prefix+".slice")
		prefix += "-"
	}
	return at
}

// uidOf takes a pod's UID from the name of a directory in its class' cgroup.
func (t *Tree) uidOf(class, dir string) (uid string, is bool) {
	if !t.cfg.Systemd {
		return strings.CutPrefix(dir, "pod")
	}
	above := strings.TrimSuffix(path.Base(t.group(class)), ".slice")
	uid, is = strings.CutPrefix(strings.TrimSuffix(dir, ".slice"), above+"-pod")
	return strings.ReplaceAll(uid, "_", "-"), is && strings.HasSuffix(dir, ".slice")
}

// slice is the library's writer of the slice at c.Path.
func (t *Tree) slice(c *cgroups.Cgroup) (cgroups.Manager, error) {
	unit := &cgroups.Cgroup{Systemd: true, Name: path.Base(c.Path), Parent: path.Base(path.Dir(c.Path)), Resources: c.Resources}
	if unit.Parent == "/" {
		unit.Parent = "-.slice"
	}
	if t.v2 {
		return systemd.NewUnifiedManager(unit, filepath.Join(hierarchies(true)[0], c.Path))
	}
	return systemd.NewLegacyManager(unit, nil)
}

// stop has systemd forget a slice that was removed.
func (t *Tree) stop(dir string) error {
	if !t.cfg.Systemd {
		return nil
	}
	m, err := t.slice(&cgroups.Cgroup{Path: dir, Resources: &cgroups.Resources{}})
	if err != nil {
		return err
	}
	if err := m.Destroy(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stop slice %s: %w", dir, err)
	}
	return nil
}
