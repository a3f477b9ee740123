package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/systemd"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// On a machine whose init is systemd, systemd may be asked to own the groups:
// a pod's is then a slice, a container's a scope, and limits are properties of
// these units, so that systemd, which writes them again whenever it reloads,
// writes the same ones. The paths are systemd's own
// (systemd.slice(5): a.slice/a-b.slice/x.scope), so everything else here works
// on such groups as on any.

// SystemdRuns says whether the machine's init is systemd (sd_booted(3)).
func SystemdRuns() bool { return systemd.IsRunningSystemd() }

// SliceName is the slice of the components, outermost first: "kubepods",
// "burstable", "pod1-2" give kubepods-burstable-pod1_2.slice. A dash separates
// levels, so it cannot be part of a component; an empty one is left out.
func SliceName(components ...string) string {
	var parts []string
	for _, c := range components {
		if c != "" {
			parts = append(parts, strings.ReplaceAll(c, "-", "_"))
		}
	}
	if len(parts) == 0 {
		return "-.slice"
	}
	return strings.Join(parts, "-") + ".slice"
}

// SlicePath is the path of the slice with that name.
func SlicePath(name string) (string, error) {
	p, err := systemd.ExpandSlice(name)
	if err != nil {
		return "", fmt.Errorf("%q is not a systemd slice, such as kubepods-pod1_2.slice", name)
	}
	return p, nil
}

// isSlice and isScope say what unit a group of systemd's is.
func (g Group) isSlice() bool { return g.hierarchy.Systemd && strings.HasSuffix(g.path, ".slice") }
func (g Group) isScope() bool { return g.hierarchy.Systemd && strings.HasSuffix(g.path, ".scope") }

// unit is the library's writer of the group's unit.
func (g Group) unit(r *cgroups.Resources) (cgroups.Manager, error) {
	cg := &cgroups.Cgroup{Systemd: true, Name: path.Base(g.path), Parent: path.Base(path.Dir(g.path)), Resources: r}
	if cg.Parent == "/" {
		cg.Parent = "-.slice"
	}
	if g.isScope() {
		name := strings.TrimSuffix(cg.Name, ".scope")
		dash := strings.LastIndexByte(name, '-')
		if dash < 1 {
			return nil, fmt.Errorf("scope %s is not named <prefix>-<id>.scope", cg.Name)
		}
		cg.ScopePrefix, cg.Name = name[:dash], name[dash+1:]
	}
	if g.hierarchy.Unified() {
		return systemd.NewUnifiedManager(cg, g.dir(""))
	}
	return systemd.NewLegacyManager(cg, nil)
}

// createSlice has systemd make the slice, and makes it in the hierarchies that
// systemd leaves out.
func (g Group) createSlice(r *cgroups.Resources) error {
	m, err := g.unit(r)
	if err != nil {
		return err
	}
	if err := m.Apply(-1); err != nil {
		return err
	}
	if err := g.makeDirs(); err != nil {
		return err
	}
	return m.Set(r)
}

// Scope makes the group, in which the process is or is about to be, a scope of
// systemd's with the same limits. It does nothing to a group that is not one.
//
// systemd sets what it knows nothing of back to its defaults when it makes a
// unit, so limits and device rules are all told to it, and written once more.
func (g Group) Scope(pid int, limits *specs.LinuxResources) error {
	if !g.isScope() {
		return nil
	}
	r, err := convert(limits, g.hierarchy.Unified())
	if err != nil {
		return fmt.Errorf("scope %s: %w", g.path, err)
	}
	var rules []specs.LinuxDeviceCgroup
	if limits != nil {
		rules = limits.Devices
	}
	r.SkipDevices = false
	for _, rule := range append(slices.Clone(rules), usualRules()...) {
		converted, err := convertRule(rule)
		if err != nil {
			return fmt.Errorf("scope %s: %w", g.path, err)
		}
		r.Devices = append(r.Devices, converted)
	}
	m, err := g.unit(r)
	if err != nil {
		return fmt.Errorf("scope %s: %w", g.path, err)
	}
	if err := m.Apply(pid); err != nil {
		return fmt.Errorf("scope %s: %w", g.path, err)
	}
	if err := g.makeDirs(); err != nil {
		return fmt.Errorf("scope %s: %w", g.path, err)
	}
	if err := m.Set(r); err != nil {
		return fmt.Errorf("limits of scope %s: %w", g.path, err)
	}
	return g.AllowDevices(rules)
}

// stopUnit has systemd forget the group's unit; one that is gone is no error.
func (g Group) stopUnit() error {
	if !g.isScope() && !g.isSlice() {
		return nil
	}
	m, err := g.unit(&cgroups.Resources{})
	if err != nil {
		return err
	}
	if err := m.Destroy(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stop the unit of cgroup %s: %w", g.path, err)
	}
	return nil
}

// makeDirs makes the group in every v1 hierarchy: the library leaves out those
// that it sets nothing in.
func (g Group) makeDirs() error {
	if g.hierarchy.Unified() {
		return nil
	}
	for _, dir := range g.dirs() {
		if err := os.MkdirAll(filepath.Clean(dir), 0o755); err != nil {
			return err
		}
	}
	return nil
}
