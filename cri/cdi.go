package cri

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// injectCDI applies the CDI devices of a request. Their edits, hooks too, come
// from the operator's spec directories only; a pod's annotations name none.
func (s *Server) injectCDI(spec *specs.Spec, cfg *runtimeapi.ContainerConfig) error {
	var names []string
	for _, d := range cfg.GetCDIDevices() {
		names = append(names, d.GetName())
	}
	return s.injectDevices(spec, names)
}

func (s *Server) injectDevices(spec *specs.Spec, names []string) error {
	if len(names) == 0 {
		return nil
	}
	// Read anew each time: devices come and go, and a cache of the library's own
	// would need a watcher that nobody owns.
	cache, err := cdi.NewCache(cdi.WithSpecDirs(s.cfg.CDIDirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("read CDI specs: %w", err)
	}
	if unknown, err := cache.InjectDevices(spec, names...); err != nil {
		if len(unknown) > 0 {
			return invalid("CDI devices %v are in none of %v", unknown, s.cfg.CDIDirs)
		}
		return fmt.Errorf("inject CDI devices %v: %w", names, err)
	}
	return nil
}
