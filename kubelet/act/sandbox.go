package act

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/qos"
)

var podScheme = scheme.Scheme

// CreateSandbox makes the pod's sandbox: directories, cgroup, then RunPodSandbox. It returns its ID.
func (e *Executor) CreateSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (string, error) {
	if err := e.Prepare(pod); err != nil {
		return "", &Error{"FailedCreatePodContainer", err}
	}
	cfg, err := e.SandboxConfig(pod, attempt)
	if err != nil {
		return "", &Error{"CreatePodSandboxConfigError", err}
	}
	handler, err := e.handler(ctx, pod)
	if err != nil {
		return "", &Error{"CreatePodSandboxError", err}
	}
	if err := e.canSeparate(ctx, pod, handler); err != nil {
		return "", &Error{"CreatePodSandboxError", err}
	}
	if err := os.MkdirAll(cfg.GetLogDirectory(), 0o755); err != nil {
		return "", &Error{"CreatePodSandboxError", fmt.Errorf("make log directory: %w", err)}
	}
	res, err := e.CRI.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
	if err != nil {
		return "", &Error{"CreatePodSandboxError", err}
	}
	e.tellSELinux(pod)
	return res.GetPodSandboxId(), nil
}

// handler is the runtime's handler that the pod's RuntimeClass names; "" for the default one.
func (e *Executor) handler(ctx context.Context, pod *corev1.Pod) (string, error) {
	class := pod.Spec.RuntimeClassName
	if class == nil || *class == "" {
		return "", nil
	}
	handler, err := e.API.RuntimeHandler(ctx, *class)
	if err != nil {
		return "", fmt.Errorf("runtime class %q: %w", *class, err)
	}
	return handler, nil
}

// SandboxConfig is the pod's sandbox as CRI wants it. Containers are created with the same value again.
func (e *Executor) SandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	hostname, _, err := e.hostname(pod)
	if err != nil {
		return nil, err
	}
	if pod.Spec.HostNetwork {
		hostname = "" // the host's namespace has its name: runtimes refuse to set one
	}
	dns, err := e.cfg.DNS.For(pod)
	if err != nil {
		return nil, err
	}
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt,
		},
		Hostname: hostname, LogDirectory: e.LogDir(pod), DnsConfig: dns,
		Labels: podLabels(pod), Annotations: podAnnotations(pod),
		PortMappings: portMappings(pod),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    e.Tree.Parent(pod),
			SecurityContext: e.sandboxSecurity(pod),
			Sysctls:         sysctls(pod),
			Overhead:        &runtimeapi.LinuxContainerResources{},
			Resources:       podResources(pod),
		},
	}
	if cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions, err = e.users(pod); err != nil {
		return nil, err
	}
	return cfg, nil
}

func podResources(pod *corev1.Pod) *runtimeapi.LinuxContainerResources {
	shares, quota, memory := qos.Pod(pod)
	r := &runtimeapi.LinuxContainerResources{CpuShares: shares, MemoryLimitInBytes: memory}
	if quota > 0 {
		r.CpuQuota, r.CpuPeriod = quota, 100_000
	}
	return r
}

// podLabels are the pod's own labels and those by which we, and others, find the sandbox again. Ours win.
func podLabels(pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	for k, v := range pod.Labels {
		out[k] = v
	}
	out[observe.LabelPodName] = pod.Name
	out[observe.LabelPodNamespace] = pod.Namespace
	out[observe.LabelPodUID] = string(pod.UID)
	return out
}

// podAnnotations are the pod's own. Runtimes must not take orders from them (HOSTILE OC14); that is their side.
func podAnnotations(pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	for k, v := range pod.Annotations {
		if k != corev1.LastAppliedConfigAnnotation {
			out[k] = v
		}
	}
	return out
}

func portMappings(pod *corev1.Pod) []*runtimeapi.PortMapping {
	if pod.Spec.HostNetwork {
		return nil
	}
	var out []*runtimeapi.PortMapping
	add := func(list []corev1.Container) {
		for _, c := range list {
			for _, p := range c.Ports {
				if p.HostPort <= 0 {
					continue
				}
				out = append(out, &runtimeapi.PortMapping{
					Protocol:      runtimeapi.Protocol(runtimeapi.Protocol_value[string(p.Protocol)]),
					ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP,
				})
			}
		}
	}
	add(pod.Spec.InitContainers)
	add(pod.Spec.Containers)
	return out
}

func sysctls(pod *corev1.Pod) map[string]string {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	out := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		out[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	return out
}

// StopSandbox stops a sandbox and frees its network.
func (e *Executor) StopSandbox(ctx context.Context, id string) error {
	_, err := e.CRI.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	if err != nil {
		return fmt.Errorf("stop sandbox %s: %w", id, err)
	}
	return nil
}

// RemoveSandbox removes a stopped sandbox with its containers.
func (e *Executor) RemoveSandbox(ctx context.Context, id string) error {
	_, err := e.CRI.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	if err != nil {
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	return nil
}

// RemoveContainer removes a dead container and its log link; its log file goes with the pod or by rotation.
func (e *Executor) RemoveContainer(ctx context.Context, pod *corev1.Pod, c observe.Container) error {
	_, err := e.CRI.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
	if err != nil {
		return fmt.Errorf("remove container %s (%s): %w", c.Name, c.ID, err)
	}
	e.unlink(pod, c)
	if c.LogPath != "" && strings.HasPrefix(c.LogPath, e.cfg.LogRoot) {
		// An instance that nobody can ask about keeps no log, nor its rotated ones.
		rotated, _ := filepath.Glob(c.LogPath + ".*")
		for _, f := range append(rotated, c.LogPath) {
			_ = os.Remove(f)
		}
	}
	return nil
}

// portsAnnotation tells tools what a container listens on.
func portsAnnotation(c *corev1.Container) string {
	if len(c.Ports) == 0 {
		return ""
	}
	b, err := json.Marshal(c.Ports)
	if err != nil {
		return ""
	}
	return string(b)
}
