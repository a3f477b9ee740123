package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
)

// ReopenLog opens a running container's log anew, after its file was renamed.
func (m *Manager) ReopenLog(ctx context.Context, id string) error {
	c, err := m.get(id)
	if err != nil {
		return err
	}
	if c.record().Phase != phaseRunning {
		return fmt.Errorf("reopen log of container %s: %w", id, ErrNotRunning)
	}
	if err := m.link.ask(ctx, keeper.OpReopen, keeper.Target{ID: id}, nil); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", id, err)
	}
	atReopened.Reach()
	return nil
}

// Update changes limits: of a running container at once, of a created one in
// its spec. What is not given stays.
func (m *Manager) Update(ctx context.Context, id string, limits *specs.LinuxResources) error {
	c, err := m.get(id)
	if err != nil {
		return err
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	switch r := c.record(); r.Phase {
	case phaseRunning:
		err = m.groupOf(r).Update(limits)
	case phaseCreated:
		_, _ = c.takeSpec() // the bundle's is the newer one from now on
		err = updateSpec(c.dir, limits)
	default:
		err = ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	return nil
}

// Spec reads the spec that a container was made from.
func (m *Manager) Spec(id string) (*specs.Spec, error) {
	c, err := m.get(id)
	if err != nil {
		return nil, err
	}
	return bundle.ReadSpec(c.dir)
}

func updateSpec(dir string, limits *specs.LinuxResources) error {
	spec, err := bundle.ReadSpec(dir)
	if err != nil {
		return err
	}
	spec.Linux.Resources = bundle.Merge(spec.Linux.Resources, limits)
	return bundle.WriteJSON(filepath.Join(dir, bundle.SpecName), spec)
}

// Stats says what a running container used and uses; detail as for a cgroup.
func (m *Manager) Stats(id string, detail bool) (Stats, error) {
	c, err := m.get(id)
	if err != nil {
		return Stats{}, err
	}
	r := c.record()
	if r.Phase != phaseRunning {
		return Stats{}, fmt.Errorf("stats of container %s: %w", id, ErrNotRunning)
	}
	s, err := m.groupOf(r).Stats(detail)
	if errors.Is(err, os.ErrNotExist) {
		return Stats{}, fmt.Errorf("stats of container %s: %w", id, ErrNotRunning)
	}
	return s, err
}
