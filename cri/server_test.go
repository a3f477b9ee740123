package cri

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/sandbox"
)

func TestLifecycleLeavesNothing(t *testing.T) {
	w := newWorld()
	s := start(t, w, t.TempDir())
	pod := runPod(t, s, podConfig("web"))
	ctr := createCtr(t, s, pod, ctrConfig("c"))
	if _, err := s.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: ctr}); err != nil {
		t.Fatal(err)
	}
	st, err := s.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: ctr, Verbose: true})
	if err != nil || st.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING || st.GetStatus().GetUser().GetLinux().GetUid() != 1002 || len(st.GetInfo()) == 0 {
		t.Fatalf("status %v, %v", st, err)
	}
	ps, err := s.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil || ps.GetStatus().GetNetwork().GetIp() != "10.1.2.3" || ps.GetStatus().GetNetwork().GetAdditionalIps()[0].GetIp() != "fd00::3" || len(ps.GetContainersStatuses()) != 1 {
		t.Fatalf("pod status %v, %v", ps, err)
	}
	removePod(t, s, pod)
	removePod(t, s, pod)
	nothingLeft(t, s, w)
}

// TestHostile_CR3: stopping and removing is idempotent, and what is not there is
// done.
func TestHostile_CR3(t *testing.T) {
	s := start(t, newWorld(), t.TempDir())
	pod := runPod(t, s, podConfig("web"))
	ctr := createCtr(t, s, pod, ctrConfig("c"))
	ctx := t.Context()
	for _, id := range []string{ctr, ctr, "no-such-container"} {
		if _, err := s.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
			t.Errorf("stop %s: %v", id, err)
		}
	}
	for _, id := range []string{ctr, ctr, "no-such-container"} {
		if _, err := s.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
			t.Errorf("remove %s: %v", id, err)
		}
	}
	for _, id := range []string{pod, pod, "no-such-pod"} {
		if _, err := s.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Errorf("stop pod %s: %v", id, err)
		}
	}
	for _, id := range []string{pod, pod, "no-such-pod"} {
		if _, err := s.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Errorf("remove pod %s: %v", id, err)
		}
	}
}

// TestHostile_CR2: a creation that is repeated gets the first one's result; one
// with another config, or of a container that has run, is refused by name; after
// a failure the name is free.
func TestHostile_CR2(t *testing.T) {
	w := newWorld()
	s := start(t, w, t.TempDir())
	pod := runPod(t, s, podConfig("web"))
	if again := runPod(t, s, podConfig("web")); again != pod {
		t.Errorf("a repeated RunPodSandbox made %s beside %s", again, pod)
	}
	other := podConfig("web")
	other.Hostname = "else"
	if _, err := s.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: other}); status.Code(toStatus(err)) != codes.AlreadyExists {
		t.Errorf("another config under the same name: %v", err)
	}

	// Ten at once, the first held up: all get one container.
	release := make(chan struct{})
	w.hook = func(step string) error {
		if step == "MountRootfs" {
			<-release
		}
		return nil
	}
	var wg sync.WaitGroup
	ids := make([]string, 10)
	for i := range ids {
		wg.Go(func() {
			resp, err := s.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctrConfig("c")})
			if err != nil {
				t.Error(err)
			}
			ids[i] = resp.GetContainerId()
		})
	}
	close(release)
	wg.Wait()
	if len(slices.Compact(slices.Clone(ids))) != 1 || len(s.containers.List()) != 1 {
		t.Errorf("ids %v, %d containers", ids, len(s.containers.List()))
	}
	w.hook = nil
	if _, err := s.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: ids[0]}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctrConfig("c")}); status.Code(toStatus(err)) != codes.AlreadyExists {
		t.Errorf("a creation under the name of a running container: %v", err)
	}

	w.hook = func(step string) error {
		if step == "Create" {
			return errStep
		}
		return nil
	}
	if _, err := s.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctrConfig("d")}); !errors.Is(err, errStep) {
		t.Errorf("error %v, want the step's", err)
	}
	w.hook = nil
	createCtr(t, s, pod, ctrConfig("d"))
	removePod(t, s, pod)
	nothingLeft(t, s, w)
}

// TestHostile_CR4: a creation that fails or is cancelled at any step leaves
// nothing behind.
func TestHostile_CR4(t *testing.T) {
	for _, step := range []string{"Setup", "CreateSandbox"} {
		for name, breakAt := range breakers {
			t.Run("RunPodSandbox/"+step+"/"+name, func(t *testing.T) {
				w := newWorld()
				s := start(t, w, t.TempDir())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w.hook = breakAt(step, cancel)
				if _, err := s.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: podConfig("web")}); err == nil {
					t.Fatal("no error")
				}
				nothingLeft(t, s, w)
				w.hook = nil
				runPod(t, s, podConfig("web"))
			})
		}
	}
	for _, step := range []string{"MountRootfs", "MountImage", "Create"} {
		for name, breakAt := range breakers {
			t.Run("CreateContainer/"+step+"/"+name, func(t *testing.T) {
				w := newWorld()
				s := start(t, w, t.TempDir())
				pod := runPod(t, s, podConfig("web"))
				before := w.left()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w.hook = breakAt(step, cancel)
				if _, err := s.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctrConfig("c")}); err == nil {
					t.Fatal("no error")
				}
				if after := w.left(); !slices.Equal(before, after) {
					t.Errorf("left behind: %v, before %v", after, before)
				}
				w.hook = nil
				createCtr(t, s, pod, ctrConfig("c"))
				removePod(t, s, pod)
				nothingLeft(t, s, w)
			})
		}
	}
}

var breakers = map[string]func(string, context.CancelFunc) func(string) error{
	"fails": func(at string, _ context.CancelFunc) func(string) error {
		return func(step string) error {
			if step == at {
				return errStep
			}
			return nil
		}
	},
	"cancelled": func(at string, cancel context.CancelFunc) func(string) error {
		return func(step string) error {
			if step == at {
				cancel()
			}
			return nil
		}
	},
}

// TestRestart: a new server over the same machine shows what was there, and
// takes back what was half made and what has no record.
func TestRestart(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	s := start(t, w, dir)
	pod := runPod(t, s, podConfig("web"))
	ctr := createCtr(t, s, pod, ctrConfig("c"))
	before, err := s.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: ctr})
	if err != nil {
		t.Fatal(err)
	}
	keep := w.left()

	// Die in the middle of creations: from that step on nothing is done, the
	// undoing neither.
	for _, step := range []string{"MountRootfs", "MountImage", "Create"} {
		w.hook = deadFrom(step)
		if _, err := s.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctrConfig("half-" + step)}); err == nil {
			t.Fatal("no error")
		}
	}
	for _, step := range []string{"Setup", "CreateSandbox"} {
		w.hook = deadFrom(step)
		if _, err := s.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: podConfig("half-" + step)}); err == nil {
			t.Fatal("no error")
		}
	}
	w.hook = nil
	// Die in the middle of a removal, when the container itself is gone.
	half := createCtr(t, s, pod, ctrConfig("half-removed"))
	w.hook = deadFrom("UnmountRootfs")
	if _, err := s.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: half}); err == nil {
		t.Fatal("no error")
	}
	w.hook = nil
	// Things without records.
	_ = fakeContainers{w}.Create(t.Context(), container.Config{ID: "orphan", SandboxID: pod})
	if _, err := (fakeSandboxes{w}).Create(t.Context(), sandbox.Config{ID: "stray"}); err != nil {
		t.Fatal(err)
	}

	s2 := start(t, w, dir)
	if got := w.left(); !slices.Equal(got, keep) {
		t.Errorf("after the restart there is %v, want %v", got, keep)
	}
	if _, err := s2.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: half}); !missing(err) {
		t.Errorf("a container whose removal was cut short: %v, want NotFound", err)
	}
	after, err := s2.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: ctr})
	if err != nil || !proto.Equal(before, after) {
		t.Errorf("status changed over the restart: %v\n%v, %v", before, after, err)
	}
	if again := runPod(t, s2, podConfig("web")); again != pod {
		t.Errorf("the restarted server forgot the pod's name: %s", again)
	}

	// A boot takes the namespaces away and leaves, at worst, the records.
	delete(w.boxes, pod)
	s3 := start(t, w, dir)
	ps, err := s3.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil || ps.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("a pod without namespaces is %v, %v", ps.GetStatus().GetState(), err)
	}
	removePod(t, s3, pod)
	nothingLeft(t, s3, w)
}

func deadFrom(at string) func(string) error {
	dead := false
	return func(step string) error {
		dead = dead || step == at
		if dead {
			return errors.New("the process is dead")
		}
		return nil
	}
}

func TestStoppedPodTakesNoContainer(t *testing.T) {
	w := newWorld()
	s := start(t, w, t.TempDir())
	pod := runPod(t, s, podConfig("web"))
	ctr := createCtr(t, s, pod, ctrConfig("c"))
	// The pod is stopped while a creation is in its middle.
	reached, release := make(chan struct{}), make(chan struct{})
	w.hook = func(step string) error {
		if step == "Create" {
			close(reached)
			<-release
		}
		return nil
	}
	failed := make(chan error)
	go func() {
		_, err := s.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctrConfig("late")})
		failed <- err
	}()
	<-reached
	if _, err := s.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-failed; status.Code(toStatus(err)) != codes.FailedPrecondition {
		t.Errorf("a creation that finished after the stop: %v", err)
	}
	if _, err := s.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: ctr}); status.Code(toStatus(err)) != codes.FailedPrecondition {
		t.Errorf("a start in a stopped pod: %v", err)
	}
	removePod(t, s, pod)
	nothingLeft(t, s, w)
}

func TestStopUsesTheSignalAndZeroKills(t *testing.T) {
	s := start(t, newWorld(), t.TempDir())
	pod := runPod(t, s, podConfig("web"))
	for timeout, want := range map[int64]int32{5: 128 + int32(syscall.SIGINT), 0: 128 + int32(syscall.SIGKILL)} {
		cfg := ctrConfig("c")
		cfg.Metadata.Attempt = uint32(timeout)
		cfg.StopSignal = runtimeapi.Signal_SIGNAL_SIGINT
		ctr := createCtr(t, s, pod, cfg)
		if _, err := s.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: ctr}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: ctr, Timeout: timeout}); err != nil {
			t.Fatal(err)
		}
		st, err := s.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: ctr})
		if err != nil || st.GetStatus().GetExitCode() != want || st.GetStatus().GetStopSignal() != runtimeapi.Signal_SIGNAL_SIGINT {
			t.Errorf("timeout %d: %v, %v; want code %d", timeout, st.GetStatus(), err, want)
		}
	}
}

// TestHostile_CR1: requests with missing parts and unknown values are
// InvalidArgument, never a panic.
func TestHostile_CR1(t *testing.T) {
	s := start(t, newWorld(), t.TempDir())
	pod := runPod(t, s, podConfig("ok"))
	badPod := func(change func(*runtimeapi.PodSandboxConfig)) *runtimeapi.RunPodSandboxRequest {
		c := podConfig("bad")
		change(c)
		return &runtimeapi.RunPodSandboxRequest{Config: c}
	}
	badCtr := func(change func(*runtimeapi.ContainerConfig)) *runtimeapi.CreateContainerRequest {
		c := ctrConfig("bad")
		change(c)
		return &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c}
	}
	for name, req := range map[string]proto.Message{
		"pod nil request":      (*runtimeapi.RunPodSandboxRequest)(nil),
		"pod no config":        &runtimeapi.RunPodSandboxRequest{},
		"pod no metadata":      badPod(func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil }),
		"pod no uid":           badPod(func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = "" }),
		"pod NUL in name":      badPod(func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "a\x00b" }),
		"pod unknown pid mode": badPod(func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext = nsMode(77) }),
		"pod cgroup parent":    badPod(func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = "/a/../../b" }),
		"pod log directory":    badPod(func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "x" }),
		"pod dns newline": badPod(func(c *runtimeapi.PodSandboxConfig) {
			c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"1.1.1.1\nnameserver 6.6.6.6"}}
		}),
		"pod nil port mapping and bad protocol": badPod(func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{nil, {Protocol: 9}}
		}),
		"pod host ip": badPod(func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostIp: "x", HostPort: 1, ContainerPort: 1}}
		}),
		"pod unknown policy": badPod(func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{SupplementalGroupsPolicy: 9}
		}),
		"pod unknown profile type": badPod(func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Seccomp: &runtimeapi.SecurityProfile{ProfileType: 9}}
		}),
		"ctr node's network": badCtr(func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
		}),
		"ctr node's IPC": badCtr(func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Ipc = runtimeapi.NamespaceMode_NODE
		}),
		"ctr network of its own": badCtr(func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_CONTAINER
		}),
		"pod handler":        &runtimeapi.RunPodSandboxRequest{Config: podConfig("bad"), RuntimeHandler: "gvisor"},
		"ctr no pod id":      &runtimeapi.CreateContainerRequest{Config: ctrConfig("c")},
		"ctr no config":      &runtimeapi.CreateContainerRequest{PodSandboxId: pod},
		"ctr no metadata":    badCtr(func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }),
		"ctr no image":       badCtr(func(c *runtimeapi.ContainerConfig) { c.Image = nil }),
		"ctr unknown signal": badCtr(func(c *runtimeapi.ContainerConfig) { c.StopSignal = 999 }),
		"ctr nil mount":      badCtr(func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{nil} }),
		"ctr unknown policy": badCtr(func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.SupplementalGroupsPolicy = 9 }),
		"ctr unknown propagation": badCtr(func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "/tmp", Propagation: 9}}
		}),
		"ctr privileged": badCtr(func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Privileged = true }),
		"ctr pod pid":    badCtr(func(c *runtimeapi.ContainerConfig) { c.Linux = nil }),
		"ctr group no user": badCtr(func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsGroup = &runtimeapi.Int64Value{Value: 1}
		}),
		"ctr negative user": badCtr(func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: -1}
		}),
		"ctr huge user": badCtr(func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1 << 32}
		}),
		"ctr negative limit": badCtr(func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: -5}
		}),
		"start nothing":  &runtimeapi.StartContainerRequest{},
		"remove nothing": &runtimeapi.RemoveContainerRequest{},
		"stop nothing":   &runtimeapi.StopPodSandboxRequest{},
		"status nothing": &runtimeapi.ContainerStatusRequest{},
		"exec nothing":   &runtimeapi.ExecSyncRequest{},
		"exec streams":   &runtimeapi.ExecRequest{ContainerId: "x"},
		"image nothing":  &runtimeapi.ImageStatusRequest{},
		"pull nothing":   &runtimeapi.PullImageRequest{},
		"remove image":   &runtimeapi.RemoveImageRequest{},
	} {
		t.Run(name, func(t *testing.T) {
			if err := call(t.Context(), s, req); status.Code(toStatus(err)) != codes.InvalidArgument {
				t.Errorf("error %v, want InvalidArgument", err)
			}
		})
	}
}

func nsMode(m runtimeapi.NamespaceMode) *runtimeapi.LinuxSandboxSecurityContext {
	return &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: m}}
}

// call sends a request to the RPC that takes it.
func call(ctx context.Context, s *Server, req proto.Message) (err error) {
	switch r := req.(type) {
	case *runtimeapi.RunPodSandboxRequest:
		_, err = s.RunPodSandbox(ctx, r)
	case *runtimeapi.CreateContainerRequest:
		_, err = s.CreateContainer(ctx, r)
	case *runtimeapi.StartContainerRequest:
		_, err = s.StartContainer(ctx, r)
	case *runtimeapi.RemoveContainerRequest:
		_, err = s.RemoveContainer(ctx, r)
	case *runtimeapi.StopPodSandboxRequest:
		_, err = s.StopPodSandbox(ctx, r)
	case *runtimeapi.ContainerStatusRequest:
		_, err = s.ContainerStatus(ctx, r)
	case *runtimeapi.ExecSyncRequest:
		_, err = s.ExecSync(ctx, r)
	case *runtimeapi.ExecRequest:
		_, err = s.Exec(ctx, r)
	case *runtimeapi.ImageStatusRequest:
		_, err = s.ImageStatus(ctx, r)
	case *runtimeapi.PullImageRequest:
		_, err = s.PullImage(ctx, r)
	case *runtimeapi.RemoveImageRequest:
		_, err = s.RemoveImage(ctx, r)
	}
	return err
}

// TestHostile_CR5: labels and annotations have limits.
func TestHostile_CR5(t *testing.T) {
	s := start(t, newWorld(), t.TempDir())
	many := map[string]string{}
	for i := range 100_000 {
		many[strings.Repeat("k", 4)+string(rune(0x4e00+i%20000))+string(rune('a'+i/20000))] = "v"
	}
	for name, m := range map[string]map[string]string{"16 MB": {"k": strings.Repeat("x", 16<<20)}, "100 k entries": many} {
		pod := podConfig("big")
		pod.Annotations = m
		if _, err := s.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod}); status.Code(toStatus(err)) != codes.ResourceExhausted {
			t.Errorf("%s of annotations: %v", name, err)
		}
		pod = podConfig("big")
		pod.Labels = m
		if _, err := s.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod}); status.Code(toStatus(err)) != codes.ResourceExhausted {
			t.Errorf("%s of labels: %v", name, err)
		}
	}
}

// TestHostile_OC13: a sysctl value cannot smuggle another, and none of the node's
// is set.
func TestHostile_OC13(t *testing.T) {
	s := start(t, newWorld(), t.TempDir())
	for name, value := range map[string]string{
		"kernel.shm_rmid_forced": "1+kernel.core_pattern=|/evil", "kernel.core_pattern": "|/evil", "vm.swappiness": "1",
		"net.ipv4.ip_forward": "1\nx", "../../etc": "1", "kernel.shmmax=1": "1",
	} {
		pod := podConfig("bad")
		pod.Linux.Sysctls = map[string]string{name: value}
		if _, err := s.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod}); status.Code(toStatus(err)) != codes.InvalidArgument {
			t.Errorf("sysctl %s=%s: %v", name, value, err)
		}
	}
	pod := podConfig("hostnet")
	pod.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}
	pod.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "0"}
	if _, err := s.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod}); status.Code(toStatus(err)) != codes.InvalidArgument {
		t.Errorf("a net sysctl in the node's network: %v", err)
	}
}

// TestCreationOutlivesItsClient: what was begun when a client's time was over is
// finished, and the client that asks again gets it; the server's end takes it back.
func TestCreationOutlivesItsClient(t *testing.T) {
	w := newWorld()
	s := start(t, w, t.TempDir())
	inTime := func(call func(context.Context) error) {
		t.Helper()
		for try := range 3 { // each too short for the step that is held up
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			err := call(ctx)
			cancel()
			if status.Code(toStatus(err)) != codes.DeadlineExceeded {
				t.Fatalf("try %d: %v, want DeadlineExceeded", try, err)
			}
		}
	}
	hold := func(at string) (release func()) {
		free := make(chan struct{})
		w.hook = func(step string) error {
			if step == at {
				<-free
			}
			return nil
		}
		return func() { close(free) }
	}
	release := hold("Setup")
	inTime(func(ctx context.Context) error {
		_, err := s.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: podConfig("slow")})
		return err
	})
	release()
	pod := runPod(t, s, podConfig("slow"))
	if n := countSteps(w, "Setup"); n != 1 {
		t.Errorf("the pod was begun %d times", n)
	}
	release = hold("Create")
	inTime(func(ctx context.Context) error {
		_, err := s.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctrConfig("slow")})
		return err
	})
	release()
	createCtr(t, s, pod, ctrConfig("slow"))
	if n := countSteps(w, "Create"); n != 1 {
		t.Errorf("the container was begun %d times", n)
	}
	removePod(t, s, pod)
	nothingLeft(t, s, w)

	release = hold("Setup")
	inTime(func(ctx context.Context) error {
		_, err := s.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: podConfig("late")})
		return err
	})
	s.stop()
	release()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, s, w)
}

func countSteps(w *world, name string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, step := range w.steps {
		if step == name {
			n++
		}
	}
	return n
}

// TestHostile_IM39: the kubelet tells a refused image from one that cannot be had
// by how the message begins, and puts the rest into its event.
func TestHostile_IM39(t *testing.T) {
	s := start(t, newWorld(), t.TempDir())
	_, err := s.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "unsigned"}})
	if told := status.Convert(toStatus(err)).Message(); !strings.HasPrefix(told, "SignatureValidationFailed: ") || !strings.Contains(told, "no signature") {
		t.Errorf("the kubelet is told %q", told)
	}
}

// TestSELinuxOff: what is asked for and cannot be had is refused, of pods before anything is made; who says so has it
// ignored.
func TestSELinuxOff(t *testing.T) {
	w := newWorld()
	s := start(t, w, t.TempDir())
	s.host.SELinux = false
	o := &runtimeapi.SELinuxOption{Level: "s0:c1,c2"}
	pod, ctr := podConfig("web"), ctrConfig("c")
	pod.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{SelinuxOptions: o}
	if _, err := s.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod}); !errors.Is(err, errInvalid) || !strings.Contains(err.Error(), "SELinux") {
		t.Errorf("a pod: %v", err)
	}
	nothingLeft(t, s, w)
	id := runPod(t, s, podConfig("other"))
	ctr.Linux.SecurityContext.SelinuxOptions = o
	if _, err := s.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: ctr}); !errors.Is(err, errInvalid) || !strings.Contains(err.Error(), "SELinux") {
		t.Errorf("a container: %v", err)
	}
	s.host.IgnoreSELinux = true
	if _, err := s.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: runPod(t, s, pod), Config: ctr}); err != nil {
		t.Errorf("to be ignored: %v", err)
	}
}

// TestStatusConditions: what keeps pods from running is told by the condition
// that it concerns.
func TestStatusConditions(t *testing.T) {
	w := newWorld()
	s := start(t, w, t.TempDir())
	conditions := func() map[string]*runtimeapi.RuntimeCondition {
		resp, err := s.Status(t.Context(), &runtimeapi.StatusRequest{Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]*runtimeapi.RuntimeCondition{}
		for _, c := range resp.GetStatus().GetConditions() {
			out[c.GetType()] = c
		}
		return out
	}
	if c := conditions(); !c[runtimeapi.RuntimeReady].GetStatus() || !c[runtimeapi.NetworkReady].GetStatus() {
		t.Errorf("with everything in place: %v", c)
	}
	w.mu.Lock()
	w.down = errors.New("no keeper")
	w.mu.Unlock()
	c := conditions()
	if r := c[runtimeapi.RuntimeReady]; r.GetStatus() || r.GetReason() == "" || !strings.Contains(r.GetMessage(), "no keeper") || !c[runtimeapi.NetworkReady].GetStatus() {
		t.Errorf("without a keeper: %v", c)
	}
}
