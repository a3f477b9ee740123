package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runner drives one CRI endpoint, and one of its runtime handlers.
type runner struct {
	name    string
	socket  string
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	image   string
	cgroup  string
	handler string
	fixed   []int // processes that are there without pods
	serial  atomic.Int64
}

// times of one pod's life and of an exec in it.
type times struct{ up, down, exec time.Duration }

func dial(name, socket, handler, image string) (*runner, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	daemon, err := daemonOf(socket)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	return &runner{name: name, socket: socket, conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn),
		image: image, cgroup: "/keelson-bench-" + strings.ReplaceAll(name, " ", ""), handler: handler, fixed: []int{daemon}}, nil
}

func (r *runner) Close() error { return r.conn.Close() }

func (r *runner) pull(ctx context.Context, image string) error {
	_, err := r.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	return err
}

// waitRuntime waits until a CRI endpoint says that it is ready.
func waitRuntime(ctx context.Context, socket string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		answer, err := runtimeapi.NewRuntimeServiceClient(conn).Status(ctx, &runtimeapi.StatusRequest{}, grpc.WaitForReady(true))
		if err == nil && !slices.ContainsFunc(answer.GetStatus().GetConditions(), func(c *runtimeapi.RuntimeCondition) bool { return !c.Status }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w (%v, %v)", ctx.Err(), err, answer.GetStatus())
		case <-ended:
			return errors.New("it ended")
		case <-time.After(20 * time.Millisecond): // CRI has no event for this
		}
	}
}

// cycle runs one pod with one container up, executes `true` in it, and takes it down.
func (r *runner) cycle(ctx context.Context, hostNetwork bool) (t times, err error) {
	n := strconv.FormatInt(r.serial.Add(1), 10)
	sandbox := r.sandboxConfig(n, hostNetwork)
	began := time.Now()
	pod, err := r.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: r.handler})
	if err != nil {
		return t, fmt.Errorf("run pod sandbox: %w", err)
	}
	defer func() {
		if err != nil {
			_, stopErr := r.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.PodSandboxId})
			_, removeErr := r.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.PodSandboxId})
			err = errors.Join(err, stopErr, removeErr)
		}
	}()
	created, err := r.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, SandboxConfig: sandbox,
		Config: r.containerConfig(hostNetwork)})
	if err != nil {
		return t, fmt.Errorf("create container: %w", err)
	}
	if _, err = r.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return t, fmt.Errorf("start container: %w", err)
	}
	t.up = time.Since(began)
	began = time.Now()
	out, err := r.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: created.ContainerId, Cmd: []string{"true"}, Timeout: 30})
	if err == nil && out.ExitCode != 0 {
		err = fmt.Errorf("exit code %d: %s", out.ExitCode, out.Stderr)
	}
	if err != nil {
		return t, fmt.Errorf("exec: %w", err)
	}
	t.exec = time.Since(began)
	began = time.Now()
	if err = r.down(ctx, pod.PodSandboxId, created.ContainerId); err != nil {
		return t, err
	}
	t.down = time.Since(began)
	return t, nil
}

func (r *runner) down(ctx context.Context, pod, container string) error {
	if _, err := r.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: container}); err != nil {
		return fmt.Errorf("stop container: %w", err)
	}
	if _, err := r.runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: container}); err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	if _, err := r.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
		return fmt.Errorf("stop pod sandbox: %w", err)
	}
	if _, err := r.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		return fmt.Errorf("remove pod sandbox: %w", err)
	}
	return nil
}

func (r *runner) sandboxConfig(n string, hostNetwork bool) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "bench-" + n, Namespace: "default", Uid: "bench-" + n, Attempt: 0},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: r.cgroup, SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: namespaces(hostNetwork)}},
	}
}

// namespaces are a pod's and its container's: the kubelet sends the same for both.
func namespaces(hostNetwork bool) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER}
	if hostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	return o
}

func (r *runner) containerConfig(hostNetwork bool) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: r.image},
		Command: []string{"sleep", "3600"},
		Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{CpuShares: 102, MemoryLimitInBytes: 64 << 20},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces(hostNetwork)}},
	}
}

// sequence runs n cycles one after another, after two that warm up.
func (r *runner) sequence(ctx context.Context, n int, hostNetwork bool) ([]times, error) {
	var out []times
	for i := range n + 2 {
		t, err := r.cycle(ctx, hostNetwork)
		if err != nil {
			return nil, err
		}
		if i >= 2 {
			out = append(out, t)
		}
	}
	return out, nil
}

// execs runs `true` in one container from c clients, n times each, and returns how long each took.
func (r *runner) execs(ctx context.Context, c, n int) (all []time.Duration, err error) {
	pod, container, err := r.up(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.down(ctx, pod, container)) }()
	results, errs := make(chan time.Duration, c*n), make(chan error, c)
	var group sync.WaitGroup
	for range c {
		group.Go(func() {
			for range n {
				began := time.Now()
				if _, err := r.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"true"}, Timeout: 60}); err != nil {
					errs <- err
					return
				}
				results <- time.Since(began)
			}
		})
	}
	group.Wait()
	close(results)
	for d := range results {
		all = append(all, d)
	}
	select {
	case err = <-errs:
	default:
	}
	return all, err
}

// up starts a pod with one container on the pod network.
func (r *runner) up(ctx context.Context) (pod, container string, err error) {
	sandbox := r.sandboxConfig(strconv.FormatInt(r.serial.Add(1), 10), false)
	made, err := r.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: r.handler})
	if err != nil {
		return "", "", err
	}
	created, err := r.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: made.PodSandboxId, SandboxConfig: sandbox, Config: r.containerConfig(false)})
	if err != nil {
		return "", "", err
	}
	_, err = r.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId})
	return made.PodSandboxId, created.ContainerId, err
}

// parallel runs cycles from c clients for a while and returns cycles per second.
func (r *runner) parallel(ctx context.Context, c int, d time.Duration) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	var done atomic.Int64
	errs := make(chan error, c)
	began := time.Now()
	for range c {
		group.Go(func() {
			for time.Since(began) < d {
				if _, err := r.cycle(ctx, false); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	took := time.Since(began).Seconds()
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(done.Load()) / took, nil
	}
}
