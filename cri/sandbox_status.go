package cri

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
)

// PodSandboxStatus describes one pod.
func (s *Server) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	rec, err := s.sandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.PodSandboxStatusResponse{
		Status: s.sandboxStatus(rec), ContainersStatuses: s.statusesOf(rec.ID), Timestamp: time.Now().UnixNano(),
	}
	if req.GetVerbose() {
		resp.Info = s.sandboxInfo(rec)
	}
	return resp, nil
}

func (s *Server) sandbox(id string) (*podstore.Sandbox, error) {
	if id == "" {
		return nil, invalid("no sandbox id")
	}
	rec, err := s.sandboxes.Get(id)
	if err != nil {
		return nil, fmt.Errorf("sandbox %w", err)
	}
	return rec, nil
}

// sandboxState goes by the record, and where a process of ours holds the PID namespace also by that process: without it nothing can
// be started in the pod any more.
func (s *Server) sandboxState(rec *podstore.Sandbox) runtimeapi.PodSandboxState {
	if rec.State != podstore.Created {
		return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	if rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid() == runtimeapi.NamespaceMode_POD {
		if sb, err := s.deps.Sandboxes.Get(rec.ID); err == nil && sb.SharedPID && !sb.Ready {
			return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		}
	}
	return runtimeapi.PodSandboxState_SANDBOX_READY
}

func (s *Server) sandboxStatus(rec *podstore.Sandbox) *runtimeapi.PodSandboxStatus {
	ns := rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if ns == nil {
		ns = &runtimeapi.NamespaceOption{}
	}
	return &runtimeapi.PodSandboxStatus{
		Id: rec.ID, Metadata: rec.Config.GetMetadata(), State: s.sandboxState(rec), CreatedAt: rec.CreatedAt.UnixNano(),
		Network: networkStatus(rec),
		Linux:   &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: ns}},
		Labels:  rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations(), RuntimeHandler: rec.Handler,
	}
}

// networkStatus: a stopped pod has given its addresses back.
func networkStatus(rec *podstore.Sandbox) *runtimeapi.PodSandboxNetworkStatus {
	out := &runtimeapi.PodSandboxNetworkStatus{}
	if rec.NetworkDown {
		return out
	}
	for i, ip := range rec.IPs {
		if i == 0 {
			out.Ip = ip.String()
			continue
		}
		out.AdditionalIps = append(out.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
	}
	return out
}

func (s *Server) sandboxInfo(rec *podstore.Sandbox) map[string]string {
	info := map[string]any{
		"config": rec.Config, "netns": rec.NetNSPath, "runtimeHandler": rec.Handler,
		// No pause image and no pause process: namespaces are pinned by mounts.
		"image": "", "pid": 0, "note": "keelson sandboxes have no pause container; their namespaces are pinned by bind mounts",
	}
	if sb, err := s.deps.Sandboxes.Get(rec.ID); err == nil {
		info["namespaces"], info["cgroup"] = sb.Namespaces, sb.CgroupPath
	}
	return infoMap(info)
}

// infoMap is the "info" of a verbose answer, one JSON object.
func infoMap(v any) map[string]string {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte("{}")
	}
	return map[string]string{"info": string(b)}
}

// ListPodSandbox lists pods, the newest first.
func (s *Server) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: s.listSandboxes(req.GetFilter())}, nil
}

func (s *Server) listSandboxes(f *runtimeapi.PodSandboxFilter) []*runtimeapi.PodSandbox {
	var out []*runtimeapi.PodSandbox
	for _, rec := range s.filterSandboxes(f.GetId(), f.GetLabelSelector()) {
		if f.GetState() != nil && f.GetState().GetState() != s.sandboxState(rec) {
			continue
		}
		out = append(out, &runtimeapi.PodSandbox{
			Id: rec.ID, Metadata: rec.Config.GetMetadata(), State: s.sandboxState(rec), CreatedAt: rec.CreatedAt.UnixNano(),
			Labels: rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations(), RuntimeHandler: rec.Handler,
		})
	}
	return out
}

// filterSandboxes gives the pods that fit, the newest first. An id may be
// shortened as in every call.
func (s *Server) filterSandboxes(id string, labels map[string]string) []*podstore.Sandbox {
	var list []*podstore.Sandbox
	if id != "" {
		if rec, err := s.sandboxes.Get(id); err == nil {
			list = append(list, rec)
		}
	} else {
		list = s.sandboxes.List()
	}
	list = slices.DeleteFunc(list, func(r *podstore.Sandbox) bool { return !matches(r.Config.GetLabels(), labels) })
	slices.SortFunc(list, func(a, b *podstore.Sandbox) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}

func matches(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}
