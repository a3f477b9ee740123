package cri

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/cri/translate"
	"keelson.dev/keelson/cri/undo"
	"keelson.dev/keelson/network"
	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/sandbox"
)

// shmBytes is the size of a pod's /dev/shm.
const shmBytes = 64 << 20

// newID gives 64 hex digits, the form node agents know.
func newID() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}

// RunPodSandbox makes a pod's namespaces, network and files. A call repeated
// with the same config gets the sandbox that the first one made.
func (s *Server) RunPodSandbox(ctx context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	cfg := req.GetConfig()
	if err := checkSandboxConfig(cfg); err != nil {
		return nil, err
	}
	if err := s.checkHandler(req.GetRuntimeHandler()); err != nil {
		return nil, err
	}
	if err := translate.CheckSELinux(cfg.GetLinux().GetSecurityContext().GetSelinuxOptions(), s.host); err != nil {
		return nil, err
	}
	netSysctls, sysctls, err := translate.Sysctls(cfg)
	if err != nil {
		return nil, err
	}
	rec := &podstore.Sandbox{ID: newID(), State: podstore.Creating, CreatedAt: time.Now(), Config: cfg, Handler: req.GetRuntimeHandler()}
	have, owner, err := s.sandboxes.Reserve(ctx, rec)
	if err != nil {
		return nil, err
	}
	if !owner {
		if have.State != podstore.Created || have.Handler != rec.Handler || !proto.Equal(have.Config, cfg) {
			return nil, fmt.Errorf("%w: sandbox %s has the name, namespace, uid and attempt of this one; remove it or ask for a later attempt", errTaken, have.ID)
		}
		return &runtimeapi.RunPodSandboxResponse{PodSandboxId: have.ID}, nil
	}
	atPodReserved.Reach()
	done, err := outlive(ctx, s, func(ctx context.Context) (*podstore.Sandbox, error) {
		done, err := s.makeSandbox(ctx, *rec, netSysctls, sysctls)
		if err == nil {
			s.emit(done.ID, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, done.ID)
			s.emit(done.ID, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, done.ID)
		}
		return done, err
	})
	if err != nil {
		return nil, fmt.Errorf("run sandbox %s/%s: %w", cfg.GetMetadata().GetNamespace(), cfg.GetMetadata().GetName(), err)
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: done.ID}, nil
}

func (s *Server) checkHandler(name string) error {
	if name == "" || slices.Contains(s.cfg.Handlers, name) {
		return nil
	}
	return invalid("unknown runtime handler %q", name)
}

// makeSandbox does what a reserved sandbox needs, or takes all of it back.
func (s *Server) makeSandbox(ctx context.Context, rec podstore.Sandbox, netSysctls, sysctls map[string]string) (_ *podstore.Sandbox, err error) {
	var back undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, takeBack(ctx, s, s.sandboxes, rec.ID, &back, func(ctx context.Context) error { return s.discardSandbox(ctx, rec.ID) }))
		}
	}()
	back.Push("files", func(context.Context) error { return os.RemoveAll(s.podDir(rec.ID)) })
	if err := s.setPodLabels(&rec); err != nil {
		return nil, err
	}
	back.Push("labels", func(context.Context) error { releasePodLabels(&rec); return nil })
	// In a user namespace the network's is made with it; else it is there before,
	// made in advance.
	steps := []func() error{
		func() error { return s.attach(ctx, &rec, netSysctls, &back) },
		func() error { return s.box(ctx, &rec, sysctls, &back) },
	}
	if userns(podNamespaces(rec.Config)) {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if err := s.writePodFiles(&rec); err != nil {
		return nil, err
	}
	atPodFiled.Reach()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	back.Push("plugins", func(ctx context.Context) error { s.nri.RemovePod(ctx, s.podView(&rec)); return nil })
	err = s.nri.RunPod(ctx, s.podView(&rec), func() error {
		rec.State = podstore.Created
		return s.sandboxes.Commit(&rec)
	})
	if err != nil {
		return nil, err
	}
	back.Commit()
	atPodCommitted.Reach()
	return &rec, nil
}

// box makes the pod's namespaces.
func (s *Server) box(ctx context.Context, rec *podstore.Sandbox, sysctls map[string]string, back *undo.Stack) error {
	cfg, err := s.boxConfig(rec, sysctls)
	if err != nil {
		return err
	}
	back.Push("namespaces", func(ctx context.Context) error { return ignoreMissing(s.deps.Sandboxes.Remove(ctx, rec.ID)) })
	box, err := s.deps.Sandboxes.Create(ctx, cfg)
	if err != nil {
		return err
	}
	if userns(podNamespaces(rec.Config)) {
		rec.NetNSPath = box.Namespaces[specs.NetworkNamespace]
	}
	atPodBoxed.Reach()
	return nil
}

// takeBack undoes a failed creation, and the record last. If something could not
// be undone, only the name is free: the record stays, and again is tried until it
// works, here or at the next start.
func takeBack[T interface {
	Delete(id string) error
	Abandon(id string)
}](ctx context.Context, s *Server, records T, id string, back *undo.Stack, again func(context.Context) error) error {
	if err := back.Rollback(ctx); err != nil {
		records.Abandon(id)
		s.again("take a failed creation back", id, again)
		return err
	}
	return records.Delete(id)
}

// attach gives the pod its network, unless it is the node's.
func (s *Server) attach(ctx context.Context, rec *podstore.Sandbox, sysctls map[string]string, back *undo.Stack) error {
	if hostNetwork(rec.Config) {
		return ctx.Err()
	}
	pod := networkPod(rec, sysctls)
	pod.NetNS = rec.NetNSPath
	back.Push("network", func(ctx context.Context) error { return s.deps.Network.Teardown(ctx, rec.ID) })
	att, err := s.deps.Network.Setup(ctx, pod)
	if err != nil {
		return fmt.Errorf("set up the pod network: %w", err)
	}
	rec.NetNSPath, rec.IPs = att.NetNSPath, att.IPs
	atPodNetworked.Reach()
	return ctx.Err()
}

func networkPod(rec *podstore.Sandbox, sysctls map[string]string) network.Pod {
	m := rec.Config.GetMetadata()
	pod := network.Pod{SandboxID: rec.ID, Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid(), Sysctls: sysctls}
	for _, p := range rec.Config.GetPortMappings() {
		if p.GetHostPort() != 0 {
			pod.PortMappings = append(pod.PortMappings, network.PortMapping{
				Protocol: p.GetProtocol().String(), HostIP: p.GetHostIp(), HostPort: p.GetHostPort(), ContainerPort: p.GetContainerPort(),
			})
		}
	}
	return pod
}

func (s *Server) boxConfig(rec *podstore.Sandbox, sysctls map[string]string) (sandbox.Config, error) {
	ns := podNamespaces(rec.Config)
	parent, err := s.cgroupParent(rec)
	return sandbox.Config{
		UIDs: boxIDs(ns.GetUsernsOptions().GetUids()), GIDs: boxIDs(ns.GetUsernsOptions().GetGids()),
		ID: rec.ID, Hostname: hostname(rec.Config), NetNSPath: rec.NetNSPath,
		HostIPC:   ns.GetIpc() == runtimeapi.NamespaceMode_NODE,
		HostUTS:   hostNetwork(rec.Config),
		SharedPID: ns.GetPid() == runtimeapi.NamespaceMode_POD,
		Sysctls:   sysctls, CgroupParent: parent, ShmBytes: shmBytes, Label: s.boxLabel(rec),
	}, err
}

func podNamespaces(cfg *runtimeapi.PodSandboxConfig) *runtimeapi.NamespaceOption {
	return cfg.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func boxIDs(in []*runtimeapi.IDMapping) []sandbox.IDMap {
	var out []sandbox.IDMap
	for _, m := range in {
		out = append(out, sandbox.IDMap{Container: m.GetContainerId(), Host: m.GetHostId(), Size: m.GetLength()})
	}
	return out
}

// cgroupParent is the pod's own cgroup: the one the kubelet made for it, or one
// per pod under the configured parent.
func (s *Server) cgroupParent(rec *podstore.Sandbox) (string, error) {
	p := rec.Config.GetLinux().GetCgroupParent()
	if !s.cfg.Systemd {
		return cmp.Or(p, path.Join(s.cfg.CgroupParent, rec.ID)), nil
	}
	// Clients name the slice, or its whole path, whose last component is the name.
	name := path.Base(p)
	if p == "" {
		name = cgroup.SliceName(append(strings.Split(s.cfg.CgroupParent, "/"), rec.ID)...)
	}
	at, err := cgroup.SlicePath(name)
	if err != nil {
		return "", invalid("cgroup parent %q: %v; the cgroup driver is systemd", p, err)
	}
	return at, nil
}

func hostNetwork(cfg *runtimeapi.PodSandboxConfig) bool {
	return cfg.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE
}

// hostname is the pod's; in the node's network it is the node's.
func hostname(cfg *runtimeapi.PodSandboxConfig) string {
	if cfg.GetHostname() != "" || !hostNetwork(cfg) {
		return cfg.GetHostname()
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

func ignoreMissing(err error) error {
	if missing(err) {
		return nil
	}
	return err
}
