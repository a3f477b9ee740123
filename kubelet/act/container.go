package act

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/qos"
)

// Target is a container to be made, with all that must be there before it.
type Target struct {
	Pod       *corev1.Pod
	Container string // name
	Kind      plan.Kind
	Attempt   uint32
	Round     uint32
	SandboxID string
	// SandboxAttempt is the attempt of the sandbox, whose configuration is handed over again.
	SandboxAttempt uint32
	IPs            []string // of the sandbox
	ImageRef       string   // as the pull resolved it
	Volumes        map[string]Mounted
	// Beside is the ID of the container whose process namespace an ephemeral container joins; may be empty.
	Beside string
}

// Start creates and starts a container and runs its post-start hook. When the hook fails, the container is killed
// and the error says so; when anything else fails, what was made stays for the next try to replace. id is the new
// container's, also with an error if it was made.
func (e *Executor) Start(ctx context.Context, t Target) (id string, err error) {
	c := plan.Find(t.Pod, t.Container)
	if c == nil {
		return "", fmt.Errorf("start container %q: the pod has no such container", t.Container)
	}
	box, err := e.SandboxConfig(t.Pod, t.SandboxAttempt)
	if err != nil {
		return "", &Error{"CreateContainerConfigError", err}
	}
	cfg, err := e.containerConfig(ctx, t, c)
	if err != nil {
		e.ContainerEvent(t.Pod, c.Name, corev1.EventTypeWarning, "Failed", "Error: %s", criclient.Message(err))
		return "", &Error{"CreateContainerConfigError", err}
	}
	made, err := e.CRI.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: t.SandboxID, Config: cfg, SandboxConfig: box,
	})
	if err != nil {
		e.ContainerEvent(t.Pod, c.Name, corev1.EventTypeWarning, "Failed", "Error: %s", criclient.Message(err))
		return "", &Error{"CreateContainerError", err}
	}
	id = made.GetContainerId()
	e.ContainerEvent(t.Pod, c.Name, corev1.EventTypeNormal, "Created", "Container created")
	if _, err := e.CRI.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		e.ContainerEvent(t.Pod, c.Name, corev1.EventTypeWarning, "Failed", "Error: %s", criclient.Message(err))
		return id, &Error{"RunContainerError", err}
	}
	e.ContainerEvent(t.Pod, c.Name, corev1.EventTypeNormal, "Started", "Container started")
	e.tellSELinuxOf(t, c)
	e.link(t, c, id)
	return id, e.postStart(ctx, t, c, id)
}

// link makes the log link that collectors look for. A failure costs them a log, never the container.
func (e *Executor) link(t Target, c *corev1.Container, id string) {
	if e.cfg.LinkRoot == "" {
		return
	}
	to := filepath.Join(e.LogDir(t.Pod), c.Name, strconv.Itoa(int(t.Attempt))+".log")
	name := e.linkName(t.Pod.Namespace, t.Pod.Name, c.Name, id)
	if err := os.Symlink(to, name); err != nil && !errors.Is(err, os.ErrExist) {
		e.Log.Warn("link container log", "link", name, "err", err)
	}
}

// containerConfig is a container as CRI wants it.
func (e *Executor) containerConfig(ctx context.Context, t Target, c *corev1.Container) (*runtimeapi.ContainerConfig, error) {
	image := &runtimeapi.ImageSpec{Image: t.ImageRef, UserSpecifiedImage: c.Image}
	uid, user, err := e.imageUser(ctx, image)
	if err != nil {
		return nil, err
	}
	if err := checkNonRoot(t.Pod, c, uid, user); err != nil {
		return nil, err
	}
	env, err := e.environment(ctx, t.Pod, c, t.IPs)
	if err != nil {
		return nil, err
	}
	table := map[string]string{}
	cfg := &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: t.Attempt},
		Image:      image,
		WorkingDir: c.WorkingDir,
		Labels:     containerLabels(t.Pod, c), Annotations: containerAnnotations(t, c),
		LogPath: filepath.Join(c.Name, strconv.Itoa(int(t.Attempt))+".log"),
		Stdin:   c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		StopSignal: stopSignal(c),
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       qos.Container(t.Pod, c, e.cfg.NodeMemory, e.Tree.OOMGroup()),
			SecurityContext: e.containerSecurity(t.Pod, c, uid, user),
		},
	}
	users, err := e.users(t.Pod)
	if err != nil {
		return nil, err
	}
	cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
	if t.Beside != "" {
		cfg.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
		cfg.Linux.SecurityContext.NamespaceOptions.TargetId = t.Beside
	}
	for _, v := range env {
		table[v.Name] = v.Value
		cfg.Envs = append(cfg.Envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	for _, s := range c.Command {
		cfg.Command = append(cfg.Command, Expand(s, table))
	}
	for _, s := range c.Args {
		cfg.Args = append(cfg.Args, Expand(s, table))
	}
	if cfg.Devices, err = e.devices(t, c); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(e.LogDir(t.Pod), c.Name), 0o755); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	cfg.Mounts, err = e.mounts(ctx, t, c, table)
	for _, m := range cfg.Mounts { // what is root's in the volume is root's in the pod
		if m.Image == nil {
			m.UidMappings, m.GidMappings = users.GetUids(), users.GetGids()
		}
	}
	if err != nil {
		return nil, err
	}
	return cfg, e.equip(ctx, t, cfg)
}

// equip adds what the container's devices need. Its own environment wins over theirs.
func (e *Executor) equip(ctx context.Context, t Target, cfg *runtimeapi.ContainerConfig) error {
	more, err := e.Devices(ctx, t.Pod, t.Container)
	if err != nil {
		return err
	}
	cfg.Envs = append(more.GetEnvs(), cfg.Envs...)
	cfg.Mounts = append(cfg.Mounts, more.GetMounts()...)
	cfg.Devices = append(cfg.Devices, more.GetDevices()...)
	cfg.CDIDevices = append(cfg.CDIDevices, more.GetCDIDevices()...)
	for k, v := range more.GetAnnotations() {
		if _, taken := cfg.Annotations[k]; !taken {
			cfg.Annotations[k] = v
		}
	}
	return nil
}

func stopSignal(c *corev1.Container) runtimeapi.Signal {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT
	}
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+string(*c.Lifecycle.StopSignal)])
}

func containerLabels(pod *corev1.Pod, c *corev1.Container) map[string]string {
	return map[string]string{
		observe.LabelPodName: pod.Name, observe.LabelPodNamespace: pod.Namespace,
		observe.LabelPodUID: string(pod.UID), observe.LabelContainerName: c.Name,
	}
}

func containerAnnotations(t Target, c *corev1.Container) map[string]string {
	out := map[string]string{
		observe.AnnotationHash:         plan.Hash(c),
		observe.AnnotationRestartCount: strconv.Itoa(int(t.Attempt)),
		observe.AnnotationTermPath:     c.TerminationMessagePath,
		observe.AnnotationTermPolicy:   string(c.TerminationMessagePolicy),
		observe.AnnotationGrace:        strconv.Itoa(int(plan.Grace(t.Pod).Seconds())),
	}
	if t.Round > 0 {
		out[observe.AnnotationRound] = strconv.Itoa(int(t.Round))
	}
	if ports := portsAnnotation(c); ports != "" {
		out[observe.AnnotationPorts] = ports
	}
	return out
}
