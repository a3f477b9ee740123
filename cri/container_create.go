package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/cri/translate"
	"keelson.dev/keelson/cri/undo"
	"keelson.dev/keelson/image"
	"keelson.dev/keelson/runtime/container"
)

// CreateContainer makes a container that is ready to start. A call repeated with
// the same config gets the container that the first one made.
func (s *Server) CreateContainer(ctx context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	cfg := req.GetConfig()
	if err := checkContainerConfig(cfg); err != nil {
		return nil, err
	}
	pod, err := s.sandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	// RemovePodSandbox waits for us; nothing else does.
	unlock, err := s.gates.share(ctx, useGate(pod.ID))
	if err != nil {
		return nil, err
	}
	rec := newRecord(pod.ID, cfg)
	have, owner, err := s.containers.Reserve(ctx, rec)
	if err != nil || !owner {
		unlock()
		if err != nil {
			return nil, err
		}
		return s.repeated(have, cfg)
	}
	atContainerReserved.Reach()
	done, err := outlive(ctx, s, func(ctx context.Context) (*podstore.Container, error) {
		defer unlock()
		done, err := s.makeContainer(ctx, *rec)
		if err == nil {
			s.emit(pod.ID, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, done.ID)
		}
		return done, err
	})
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", cfg.GetMetadata().GetName(), err)
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: done.ID}, nil
}

// newRecord names everything that the creation will make outside of the runtime,
// so that whoever finds the record can take it back.
func newRecord(sandboxID string, cfg *runtimeapi.ContainerConfig) *podstore.Container {
	rec := &podstore.Container{
		ID: newID(), SandboxID: sandboxID, State: podstore.Creating, CreatedAt: time.Now(),
		Config: cfg, Resources: cfg.GetLinux().GetResources(), ImageMounts: map[int]string{}, VolumeImages: map[int]string{},
	}
	if rec.Resources == nil {
		rec.Resources = &runtimeapi.LinuxContainerResources{}
	}
	for i, m := range cfg.GetMounts() {
		if m.GetImage().GetImage() != "" {
			rec.ImageMounts[i] = fmt.Sprintf("%s-%d", rec.ID, i)
		}
	}
	return rec
}

// repeated answers a creation whose name has a container already: the client may
// not have heard of the first one's success. One that has run is another matter.
func (s *Server) repeated(have *podstore.Container, cfg *runtimeapi.ContainerConfig) (*runtimeapi.CreateContainerResponse, error) {
	st, err := s.deps.Containers.State(have.ID)
	if err == nil && st.Status == container.Created && proto.Equal(have.Config, cfg) {
		return &runtimeapi.CreateContainerResponse{ContainerId: have.ID}, nil
	}
	return nil, fmt.Errorf("%w: container %s has the name and attempt of this one; remove it or ask for a later attempt", errTaken, have.ID)
}

// readySandbox gives the pod if containers may be made and started in it.
func (s *Server) readySandbox(id string) (*podstore.Sandbox, error) {
	pod, err := s.sandbox(id)
	if err != nil {
		return nil, err
	}
	if pod.State != podstore.Created {
		return nil, fmt.Errorf("%w: sandbox %s is stopped", errState, pod.ID)
	}
	return pod, nil
}

// makeContainer does what a reserved container needs, or takes all of it back.
func (s *Server) makeContainer(ctx context.Context, rec podstore.Container) (_ *podstore.Container, err error) {
	var back undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, takeBack(ctx, s, s.containers, rec.ID, &back, func(ctx context.Context) error { return s.dismantle(ctx, &rec) }))
		}
	}()
	pod, err := s.readySandbox(rec.SandboxID)
	if err != nil {
		return nil, err
	}
	spec, err := s.prepare(ctx, &rec, pod, &back)
	if err != nil {
		return nil, err
	}
	view := s.containerView(&rec, spec)
	back.Push("plugins", func(ctx context.Context) error {
		s.nri.Removed(ctx, s.podView(pod), s.containerView(&rec, nil))
		return nil
	})
	others, err := s.nri.Create(ctx, s.podView(pod), view, func(adjust *api.ContainerAdjustment) error {
		if err := s.adjust(&rec, spec, adjust); err != nil {
			return err
		}
		return s.commitContainer(ctx, &rec, spec, &back)
	})
	if err != nil {
		return nil, err
	}
	s.NRIUpdate(ctx, others)
	s.nri.Created(ctx, s.podView(pod), s.containerView(&rec, nil))
	back.Commit()
	atContainerCommitted.Reach()
	return &rec, nil
}

// commitContainer makes the container in the runtime and shows it to clients.
func (s *Server) commitContainer(ctx context.Context, rec *podstore.Container, spec *specs.Spec, back *undo.Stack) error {
	back.Push("container", func(ctx context.Context) error { return ignoreMissing(s.deps.Containers.Remove(ctx, rec.ID)) })
	err := s.deps.Containers.Create(ctx, container.Config{
		ID: rec.ID, SandboxID: rec.SandboxID, Spec: spec, LogPath: rec.LogPath,
		TTY: rec.Config.GetTty(), Stdin: rec.Config.GetStdin(), StdinOnce: rec.Config.GetStdinOnce(),
	})
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	atContainerMade.Reach()
	rec.State = podstore.Created
	if err := s.containers.Commit(rec); err != nil {
		return err
	}
	// A pod that was stopped meanwhile did not see this container.
	_, err = s.readySandbox(rec.SandboxID)
	return err
}

// prepare gathers what the spec depends on, mounts the root filesystem, and
// computes the spec. It fills in rec.
func (s *Server) prepare(ctx context.Context, rec *podstore.Container, pod *podstore.Sandbox, back *undo.Stack) (*specs.Spec, error) {
	cfg := rec.Config
	sc := cfg.GetLinux().GetSecurityContext()
	if sc.GetPrivileged() && !pod.Config.GetLinux().GetSecurityContext().GetPrivileged() {
		return nil, invalid("the container is privileged, but its sandbox was not created for privileged containers")
	}
	img, err := s.deps.Images.Get(cfg.GetImage().GetImage())
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", cfg.GetImage().GetImage(), err)
	}
	rec.ImageID, rec.ImageRef = img.ID, imageRef(img)
	if set := translate.SELinuxSet(sc.GetSelinuxOptions()); !s.host.SELinux && s.host.IgnoreSELinux && set != "" {
		s.log.Warn("SELinux options are without effect: SELinux is off on this host", "option", set, "container", rec.ID, "name", cfg.GetMetadata().GetName(), "pod", pod.ID)
	}
	sig, sigName, err := translate.StopSignal(cfg.GetStopSignal(), img.Config)
	if err != nil {
		return nil, err
	}
	rec.StopSignal, rec.StopSignalName = int(sig), sigName
	if rec.LogPath, err = logPath(pod.Config.GetLogDirectory(), cfg.GetLogPath()); err != nil {
		return nil, err
	}
	who, err := translate.UserString(sc, img.Config)
	if err != nil {
		return nil, err
	}
	back.Push("root filesystem", func(ctx context.Context) error { return s.deps.Rootfs.UnmountRootfs(ctx, rec.ID) })
	ids := podNamespaces(pod.Config).GetUsernsOptions()
	if err := checkShared(sc.GetNamespaceOptions(), podNamespaces(pod.Config)); err != nil {
		return nil, err
	}
	process, mount, err := s.containerLabels(pod, sc)
	if err != nil {
		return nil, err
	}
	rootfs, err := s.deps.Rootfs.MountRootfs(ctx, rec.ID, img.ID, image.RootfsOptions{UIDs: imageIDs(ids.GetUids()), GIDs: imageIDs(ids.GetGids()), Label: mount})
	if err != nil {
		return nil, fmt.Errorf("mount the root filesystem: %w", err)
	}
	atContainerMounted.Reach()
	if err := directories(rootfs); err != nil {
		return nil, invalid("image %s: %v", cfg.GetImage().GetImage(), err)
	}
	if userns(podNamespaces(pod.Config)) {
		if err := reachable(rootfs, ids.GetGids()[0].GetHostId()); err != nil {
			return nil, err
		}
	}
	user, err := s.deps.ResolveUser(rootfs, who)
	if err != nil {
		return nil, invalid("user %q of image %s: %v", who, cfg.GetImage().GetImage(), err)
	}
	in := translate.Input{
		ID: rec.ID, Config: cfg, Pod: pod.Config, Image: img.Config, Rootfs: rootfs, Host: s.host, ProcessLabel: process, MountLabel: mount,
		User: translate.User{UID: user.UID, GID: user.GID, Groups: user.AdditionalGIDs, Username: user.Name},
	}
	if err := s.gather(ctx, &in, rec, pod, back); err != nil {
		return nil, err
	}
	spec, err := translate.Spec(in)
	if err != nil {
		return nil, err
	}
	if err := s.injectCDI(spec, cfg); err != nil {
		return nil, err
	}
	rec.Process = spec.Process
	return spec, ctx.Err()
}

// checkShared refuses what a container cannot have for itself: these namespaces
// are its sandbox's.
func checkShared(own, pod *runtimeapi.NamespaceOption) error {
	const node = runtimeapi.NamespaceMode_NODE
	switch {
	case own.GetUsernsOptions() != nil && !sameUserns(own.GetUsernsOptions(), pod.GetUsernsOptions()):
		return invalid("the container's user namespace is not its sandbox's")
	case own.GetNetwork() == node && pod.GetNetwork() != node:
		return invalid("the container asks for the node's network, but its sandbox has one of its own")
	case own.GetIpc() == node && pod.GetIpc() != node:
		return invalid("the container asks for the node's IPC namespace, but its sandbox has one of its own")
	}
	return nil
}

// sameUserns: none is the node's.
func sameUserns(container, pod *runtimeapi.UserNamespace) bool {
	if pod == nil {
		return container.GetMode() == runtimeapi.NamespaceMode_NODE
	}
	return proto.Equal(container, pod)
}

func imageIDs(in []*runtimeapi.IDMapping) []image.IDMap {
	var out []image.IDMap
	for _, m := range in {
		out = append(out, image.IDMap{Container: m.GetContainerId(), Host: m.GetHostId(), Size: m.GetLength()})
	}
	return out
}

// gather reads what the spec needs to know of the machine and of the pod.
func (s *Server) gather(ctx context.Context, in *translate.Input, rec *podstore.Container, pod *podstore.Sandbox, back *undo.Stack) (err error) {
	cfg := rec.Config
	sc := cfg.GetLinux().GetSecurityContext()
	sb, err := s.deps.Sandboxes.Get(pod.ID)
	if err != nil {
		return fmt.Errorf("sandbox %s: %w", pod.ID, err)
	}
	in.Sandbox = translate.Sandbox{
		Namespaces: sb.Namespaces, CgroupPath: sb.CgroupPath, ShmPath: sb.ShmPath, Hostname: hostname(pod.Config),
		ResolvConf: s.podFile(pod.ID, resolvFile), HostsFile: s.podFile(pod.ID, hostsFile), HostnameFile: s.podFile(pod.ID, hostnameFile),
	}
	if in.Mounts, err = s.resolveMounts(ctx, rec, pod, in.MountLabel, back); err != nil {
		return err
	}
	if err := relabelMounts(in); err != nil {
		return err
	}
	if in.Devices, err = requestedDevices(cfg.GetDevices()); err != nil {
		return err
	}
	if sc.GetPrivileged() {
		if in.Host.Devices, err = hostDevices(); err != nil {
			return err
		}
	}
	if in.SeccompProfile, err = seccompProfile(sc); err != nil {
		return err
	}
	if s.host.AppArmor {
		if in.AppArmorDefault, err = s.appArmor.choose(ctx, sc); err != nil {
			return err
		}
	}
	in.TargetPID, err = s.targetPID(sc.GetNamespaceOptions(), pod.ID)
	return err
}

// maxProfile bounds a localhost seccomp profile; real ones have some 20 KB.
const maxProfile = 1 << 20

// seccompProfile reads a Localhost profile. The path is the client's word, as
// the CRI has it; whatever goes wrong, the container is not made.
func seccompProfile(sc *runtimeapi.LinuxContainerSecurityContext) ([]byte, error) {
	p, err := translate.Profile(sc.GetSeccomp(), sc.GetSeccompProfilePath())
	if err != nil {
		return nil, err
	}
	if p.GetProfileType() != runtimeapi.SecurityProfile_Localhost || sc.GetPrivileged() {
		return nil, nil
	}
	fi, err := os.Stat(p.GetLocalhostRef())
	switch {
	case err != nil:
		return nil, invalid("seccomp profile %s: %v", p.GetLocalhostRef(), err)
	case !fi.Mode().IsRegular() || fi.Size() > maxProfile:
		return nil, invalid("seccomp profile %s is not a regular file of at most %d bytes", p.GetLocalhostRef(), maxProfile)
	}
	b, err := os.ReadFile(p.GetLocalhostRef())
	if err != nil {
		return nil, invalid("seccomp profile %s: %v", p.GetLocalhostRef(), err)
	}
	return b, nil
}

// targetPID finds the process whose PID namespace is to be shared: only a running
// container of the same pod may be a target.
func (s *Server) targetPID(o *runtimeapi.NamespaceOption, sandboxID string) (int, error) {
	if o.GetPid() != runtimeapi.NamespaceMode_TARGET {
		return 0, nil
	}
	target, err := s.containers.Get(o.GetTargetId())
	if err != nil || target.SandboxID != sandboxID {
		return 0, invalid("target container %q is not in sandbox %s", o.GetTargetId(), sandboxID)
	}
	st, err := s.deps.Containers.State(target.ID)
	if err != nil {
		return 0, err
	}
	if st.Status != container.Running {
		return 0, fmt.Errorf("%w: target container %s is not running", errState, target.ID)
	}
	return st.Pid, nil
}
