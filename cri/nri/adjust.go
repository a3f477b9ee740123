package nri

import (
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/runtime-tools/generate"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Adjust changes spec as the plugins ask. inject adds CDI devices by name. Where
// the kernel does not limit swap, no limit of it is set.
func Adjust(spec *specs.Spec, a *api.ContainerAdjustment, swap bool, inject func(*specs.Spec, []string) error) error {
	if a == nil {
		return nil
	}
	if r := a.GetLinux().GetResources(); r.GetBlockioClass() != nil || r.GetRdtClass() != nil {
		return errors.New("an NRI plugin asks for a block I/O or RDT class, which this runtime has none of")
	}
	if err := generate.SpecGenerator(editor{spec}, generate.WithCDIDeviceInjector(inject)).Adjust(a); err != nil {
		return fmt.Errorf("adjust the container as NRI plugins ask: %w", err)
	}
	spec.Process.Rlimits = lastOfEach(spec.Process.Rlimits)
	if m := spec.Linux.Resources.Memory; m != nil && !swap {
		m.Swap = nil
	}
	return nil
}

// lastOfEach drops limits that a later one of their type replaces: a plugin's
// come after those that were there.
func lastOfEach(limits []specs.POSIXRlimit) (out []specs.POSIXRlimit) {
	for i, l := range limits {
		if !slices.ContainsFunc(limits[i+1:], func(later specs.POSIXRlimit) bool { return later.Type == l.Type }) {
			out = append(out, l)
		}
	}
	return out
}
