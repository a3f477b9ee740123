package cri

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/nri"
)

const (
	runtimeName       = "keelson"
	runtimeAPIVersion = "v1"
	// kubeletAPIVersion is what the kubelet asks for and expects back.
	kubeletAPIVersion = "0.1.0"
)

// Version says who answers.
func (s *Server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version: kubeletAPIVersion, RuntimeName: runtimeName, RuntimeVersion: s.cfg.Version, RuntimeApiVersion: runtimeAPIVersion,
	}, nil
}

// Status says whether pods can run here, and with what features.
func (s *Server) Status(_ context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	ready := &runtimeapi.RuntimeCondition{Type: "RuntimeReady", Status: true}
	if err := s.deps.Containers.Status(); err != nil {
		ready.Status, ready.Reason, ready.Message = false, "KeeperDown", err.Error()
	}
	network := &runtimeapi.RuntimeCondition{Type: "NetworkReady", Status: true}
	if err := s.deps.Network.Status(); err != nil {
		network.Status, network.Reason, network.Message = false, "NetworkPluginNotReady", err.Error()
	}
	resp := &runtimeapi.StatusResponse{
		Status:          &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{ready, network}},
		RuntimeHandlers: s.handlers(),
		Features:        &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true},
	}
	if req.GetVerbose() {
		resp.Info = infoMap(map[string]any{
			"runDir": s.cfg.RunDir, "cgroupDriver": s.driver().String(), "cgroupV2": s.host.Unified, "capabilities": s.host.Capabilities,
			"appArmor": s.host.AppArmor, "selinux": s.host.SELinux, "cdiSpecDirs": s.cfg.CDIDirs,
			"sandboxes": len(s.sandboxes.List()), "containers": len(s.containers.List()),
			"sandboxImage": "", // there is no pause container
		})
	}
	return resp, nil
}

func (s *Server) handlers() []*runtimeapi.RuntimeHandler {
	var out []*runtimeapi.RuntimeHandler
	for _, name := range append([]string{""}, s.cfg.Handlers...) {
		out = append(out, &runtimeapi.RuntimeHandler{
			Name: name, Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: s.host.Userns},
		})
	}
	return out
}

func (s *Server) driver() runtimeapi.CgroupDriver {
	if s.cfg.Systemd {
		return runtimeapi.CgroupDriver_SYSTEMD
	}
	return runtimeapi.CgroupDriver_CGROUPFS
}

// RuntimeConfig tells the kubelet which cgroup driver to use.
func (s *Server) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: s.driver()}}, nil
}

// UpdateRuntimeConfig hears the node's pod CIDR from the kubelet. The network is
// configured when it is made, so there is nothing to change.
func (s *Server) UpdateRuntimeConfig(_ context.Context, req *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	if cidr := req.GetRuntimeConfig().GetNetworkConfig().GetPodCidr(); cidr != "" {
		s.log.Debug("the kubelet names a pod CIDR; the network has its own", "cidr", cidr)
	}
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

// UpdatePodSandboxResources is best effort by its contract: the kubelet has
// already changed the pod's cgroup, which is all there is to change.
func (s *Server) UpdatePodSandboxResources(ctx context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	rec, err := s.sandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if err := s.nri.UpdatePod(ctx, s.podView(rec), nri.Limits(req.GetOverhead()), nri.Limits(req.GetResources())); err != nil {
		return nil, fmt.Errorf("update sandbox %s: %w", rec.ID, err)
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}
