package crisuite

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Client is a connection to a CRI endpoint.
type Client struct {
	runtimeapi.RuntimeServiceClient
	Images runtimeapi.ImageServiceClient
	conn   *grpc.ClientConn
}

// Dial connects to a unix socket, with the kubelet's message limit.
func Dial(socket string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", socket, err)
	}
	return clientOf(conn), nil
}

func clientOf(conn *grpc.ClientConn) *Client {
	return &Client{runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn), conn}
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// RemoveAll removes every pod of the endpoint.
func (c *Client) RemoveAll(ctx context.Context, tb testing.TB) {
	list, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		tb.Errorf("list pods: %v", err)
		return
	}
	for _, p := range list.GetItems() {
		if _, err := c.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.GetId()}); err != nil {
			tb.Errorf("remove pod %s: %v", p.GetId(), err)
		}
	}
}

// Bench is what one behaviour works with: a client, the image, and makers of
// pods and containers that clean up after themselves.
type Bench struct {
	*testing.T
	*Client
	Target Target
}

// Target is an endpoint and what is known of it.
type Target struct {
	Socket string
	// Conn is used instead of Socket when it is set; Run does not close it.
	Conn  *grpc.ClientConn
	Image string
	// CgroupParent is where the suite's pods go.
	CgroupParent string
	// Processes is true when containers are real.
	Processes bool
	// CDIDir is where the target looks for CDI specs; "" is unknown.
	CDIDir string
	// LogDir is a directory for the pods' logs.
	LogDir string
}

var serial atomic.Int64

// name is unlike any other of this run and of others.
func name(kind string) string {
	return fmt.Sprintf("%s-%s-%d", kind, rand.Text()[:8], serial.Add(1))
}

// PodConfig is a pod of its own network; change tailors it.
func (b *Bench) PodConfig(change ...func(*runtimeapi.PodSandboxConfig)) *runtimeapi.PodSandboxConfig {
	n := name("pod")
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: n, Namespace: "crisuite", Uid: name("uid")}, Hostname: "suite-host",
		LogDirectory: filepath.Join(b.Target.LogDir, n), Labels: map[string]string{"suite": n}, Annotations: map[string]string{"note": "x"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: filepath.Join(b.Target.CgroupParent, n),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Pid: runtimeapi.NamespaceMode_CONTAINER,
			}},
		},
	}
	for _, f := range change {
		f(cfg)
	}
	return cfg
}

// HostNetwork makes it a pod of the node's network.
func HostNetwork(c *runtimeapi.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
}

// Privileged makes it a pod that may have privileged containers.
func Privileged(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true }

// RunPod runs a pod that is removed at the test's end.
func (b *Bench) RunPod(cfg *runtimeapi.PodSandboxConfig) string {
	b.Helper()
	resp, err := b.RunPodSandbox(b.Context(), &runtimeapi.RunPodSandboxRequest{Config: cfg})
	if err != nil {
		b.Fatalf("run pod: %v", err)
	}
	id := resp.GetPodSandboxId()
	b.Cleanup(func() { b.RemovePod(id) })
	return id
}

// RemovePod removes a pod, even after the test's context has ended.
func (b *Bench) RemovePod(id string) {
	b.Helper()
	if _, err := b.RemovePodSandbox(context.WithoutCancel(b.Context()), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		b.Errorf("remove pod: %v", err)
	}
}

// ContainerConfig runs a shell command in the suite's image.
func (b *Bench) ContainerConfig(script string, change ...func(*runtimeapi.ContainerConfig)) *runtimeapi.ContainerConfig {
	n := name("ctr")
	cfg := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: n}, Image: &runtimeapi.ImageSpec{Image: b.Target.Image},
		Command: []string{"sh", "-c", script}, LogPath: n + "/0.log", Labels: map[string]string{"l": "v"}, Annotations: map[string]string{"a": "v"},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	for _, f := range change {
		f(cfg)
	}
	return cfg
}

// CreateIn creates a container.
func (b *Bench) CreateIn(pod string, podCfg *runtimeapi.PodSandboxConfig, cfg *runtimeapi.ContainerConfig) string {
	b.Helper()
	resp, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: podCfg})
	if err != nil {
		b.Fatalf("create container: %v", err)
	}
	return resp.GetContainerId()
}

// StartIn creates and starts a container.
func (b *Bench) StartIn(pod string, podCfg *runtimeapi.PodSandboxConfig, cfg *runtimeapi.ContainerConfig) string {
	b.Helper()
	id := b.CreateIn(pod, podCfg, cfg)
	if _, err := b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		b.Fatalf("start container: %v", err)
	}
	return id
}

// Sh runs a shell command in a container and gives its output; a code other than
// 0 fails the test.
func (b *Bench) Sh(id, script string) string {
	b.Helper()
	resp := b.ShCode(id, script)
	if resp.GetExitCode() != 0 {
		b.Fatalf("%q: code %d, stdout %q, stderr %q", script, resp.GetExitCode(), resp.GetStdout(), resp.GetStderr())
	}
	return string(resp.GetStdout())
}

// ShCode runs a shell command in a container.
func (b *Bench) ShCode(id, script string) *runtimeapi.ExecSyncResponse {
	b.Helper()
	resp, err := b.ExecSync(b.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", script}, Timeout: 30})
	if err != nil {
		b.Fatalf("exec %q: %v", script, err)
	}
	return resp
}

// Status of a container.
func (b *Bench) Status(id string) *runtimeapi.ContainerStatus {
	b.Helper()
	resp, err := b.ContainerStatus(b.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		b.Fatalf("status of %s: %v", id, err)
	}
	return resp.GetStatus()
}
