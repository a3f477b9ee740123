package act

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/volume"
)

// mounts computes a container's mounts: its volumes, /etc/hosts and the termination log.
func (e *Executor) mounts(ctx context.Context, t Target, c *corev1.Container, env map[string]string) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	hosts := true
	for i, m := range c.VolumeMounts {
		if path.Clean(m.MountPath) == "/etc/hosts" {
			hosts = false
		}
		mount, err := e.volumeMount(ctx, t, c, i, m, env)
		if err != nil {
			return nil, err
		}
		out = append(out, mount)
	}
	if hosts {
		file, err := e.writeHosts(t.Pod, t.IPs)
		if err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: file, SelinuxRelabel: true})
	}
	if c.TerminationMessagePath != "" {
		file, err := e.terminationLog(t.Pod, c.Name, t.Attempt)
		if err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: file, SelinuxRelabel: true})
	}
	return out, nil
}

func (e *Executor) volumeMount(ctx context.Context, t Target, c *corev1.Container, i int, m corev1.VolumeMount, env map[string]string) (*runtimeapi.Mount, error) {
	vol, has := t.Volumes[m.Name]
	if !has {
		return nil, fmt.Errorf("volume %q of container %q is not mounted", m.Name, c.Name)
	}
	dest := m.MountPath
	if !path.IsAbs(dest) {
		dest = "/" + dest
	}
	out := &runtimeapi.Mount{
		ContainerPath: dest, HostPath: vol.HostPath, Readonly: m.ReadOnly || vol.ReadOnly, SelinuxRelabel: !vol.Host,
		Propagation: propagation(m.MountPropagation),
	}
	var err error
	if out.RecursiveReadOnly, err = e.recursive(ctx, t.Pod, m); err != nil {
		return nil, err
	}
	sub := m.SubPath
	if m.SubPathExpr != "" {
		if sub, err = expandStrictly(m.SubPathExpr, env); err != nil {
			return nil, fmt.Errorf("subPathExpr of volume %q: %w", m.Name, err)
		}
	}
	if vol.Image != "" {
		out.Image, out.ImageSubPath, out.Readonly = &runtimeapi.ImageSpec{Image: vol.Image}, sub, true
		return out, nil
	}
	if sub == "" {
		return out, nil
	}
	from := volume.Mounted{HostPath: vol.HostPath, ReadOnly: vol.ReadOnly, Live: live(t.Pod, m.Name)}
	p, err := e.SubPath(ctx, t.Pod, c.Name, i, from, m.Name, sub)
	if err != nil {
		return nil, err
	}
	out.HostPath = p
	return out, nil
}

// recursive tells whether a read-only mount is to be so with all that is mounted below it (KEP-3857). The runtime is asked
// only when the pod wants it: one that ignored the request would leave writable what the pod takes for safe.
func (e *Executor) recursive(ctx context.Context, pod *corev1.Pod, m corev1.VolumeMount) (bool, error) {
	if !m.ReadOnly || m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	handler, err := e.handler(ctx, pod)
	if err != nil {
		return false, err
	}
	f, err := e.features(ctx, handler)
	if err != nil {
		return false, fmt.Errorf("volume %q: ask the runtime for recursive read-only mounts: %w", m.Name, err)
	}
	if !f.GetRecursiveReadOnlyMounts() && *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
	}
	return f.GetRecursiveReadOnlyMounts(), nil
}

// live tells whether a volume's content is written by the node, so that a missing subPath in it is an error.
func live(pod *corev1.Pod, name string) bool {
	for _, v := range pod.Spec.Volumes {
		if v.Name == name {
			return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
		}
	}
	return false
}

// expandStrictly is Expand where every name must be known, since a path with a hole in it is another path.
func expandStrictly(s string, env map[string]string) (string, error) {
	if name := firstUnknown(s, env); name != "" {
		return "", fmt.Errorf("missing value for %q", name)
	}
	return Expand(s, env), nil
}

func firstUnknown(s string, env map[string]string) string {
	unknown := ""
	for i := 0; i+1 < len(s); i++ {
		if s[i] != '$' {
			continue
		}
		if s[i+1] == '$' {
			i++
			continue
		}
		if s[i+1] != '(' {
			continue
		}
		for j := i + 2; j < len(s); j++ {
			if s[j] == ')' {
				if _, has := env[s[i+2:j]]; !has && unknown == "" {
					unknown = s[i+2 : j]
				}
				break
			}
		}
	}
	return unknown
}

func propagation(m *corev1.MountPropagationMode) runtimeapi.MountPropagation {
	if m == nil {
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
	}
	switch *m {
	case corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

// devices are the block volumes of a container.
func (e *Executor) devices(t Target, c *corev1.Container) ([]*runtimeapi.Device, error) {
	var out []*runtimeapi.Device
	for _, d := range c.VolumeDevices {
		vol, has := t.Volumes[d.Name]
		if !has {
			return nil, fmt.Errorf("block volume %q of container %q is not there", d.Name, c.Name)
		}
		perm := "mrw"
		if vol.ReadOnly {
			perm = "r"
		}
		out = append(out, &runtimeapi.Device{ContainerPath: d.DevicePath, HostPath: vol.HostPath, Permissions: perm})
	}
	return out, nil
}

// terminationLog makes the file that a container instance may leave its last words in. Its name follows from the
// instance, so that it is found again after a restart of the daemon.
func (e *Executor) terminationLog(pod *corev1.Pod, container string, attempt uint32) (string, error) {
	file := e.terminationPath(string(pod.UID), container, attempt)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return "", fmt.Errorf("make directory of container %s: %w", container, err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return "", fmt.Errorf("make termination log of container %s: %w", container, err)
	}
	defer f.Close()
	return file, f.Chmod(0o666) // any user of the container may write it, whatever our umask
}

func (e *Executor) terminationPath(uid, container string, attempt uint32) string {
	return filepath.Join(e.cfg.Root, "pods", uid, "containers", container, "termination-"+strconv.Itoa(int(attempt)))
}
