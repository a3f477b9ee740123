package cri

import (
	"errors"
	"fmt"

	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/cri/translate"
)

// privilegedType is the domain of containers that are not confined.
const privilegedType = "spc_t"

// setPodLabels chooses a pod's SELinux labels: of the policy's types for
// containers, with categories that no other pod has, unless the pod asks for
// others.
func (s *Server) setPodLabels(rec *podstore.Sandbox) error {
	o := rec.Config.GetLinux().GetSecurityContext().GetSelinuxOptions()
	if !s.host.SELinux {
		return nil
	}
	process, mount := selinux.ContainerLabels() //nolint:staticcheck // its levels are the library's to keep apart
	if process == "" || mount == "" {
		if s.labelled(o) {
			return errNoPolicy
		}
		return nil
	}
	var err error
	rec.ProcessLabel, rec.MountLabel, err = withOptions(process, mount, o, false)
	if err != nil || o.GetLevel() != "" {
		selinux.ReleaseLabel(process)
	}
	return err
}

// errNoPolicy: a policy for other machines than nodes is loaded.
var errNoPolicy = fmt.Errorf("%w: SELinux is on, but its policy knows no containers (contexts/lxc_contexts): install one that does, such as container-selinux", errState)

// labelled tells whether one that asks for this gets labels at all. Not every
// host with SELinux has rules for this runtime, so the operator says whether
// those that ask for nothing are confined too.
func (s *Server) labelled(o *runtimeapi.SELinuxOption) bool {
	return s.cfg.SELinux || translate.SELinuxSet(o) != ""
}

// LabelImages gives the folder of images the label of files that all containers
// may read and execute, if the policy has one: what is made in it later gets its
// type. The kernel asks for that of the files below an overlay too.
func LabelImages(dir string) error {
	if !selinux.GetEnabled() {
		return nil
	}
	process, _ := selinux.ContainerLabels() //nolint:staticcheck // the library knows no label of files before
	selinux.ReleaseLabel(process)
	label := selinux.ROFileLabel()
	if label == "" || selinux.SecurityCheckContext(label) != nil {
		return nil
	}
	if have, err := selinux.FileLabel(dir); err == nil && have == label {
		return nil
	}
	return relabel(dir, label)
}

// keepPodLabels holds the categories of the pods that an earlier daemon made.
func (s *Server) keepPodLabels() {
	for _, rec := range s.sandboxes.List() {
		if rec.ProcessLabel != "" {
			selinux.ReserveLabel(rec.ProcessLabel)
		}
	}
}

func releasePodLabels(rec *podstore.Sandbox) {
	if rec != nil && rec.ProcessLabel != "" {
		selinux.ReleaseLabel(rec.ProcessLabel)
	}
}

// boxLabel is that of the files which a pod's containers can see of it.
func (s *Server) boxLabel(rec *podstore.Sandbox) string {
	if !s.labelled(rec.Config.GetLinux().GetSecurityContext().GetSelinuxOptions()) {
		return ""
	}
	return rec.MountLabel
}

// containerLabels are the pod's with what the container asks for. A privileged
// container is not confined, but its files are the pod's.
func (s *Server) containerLabels(pod *podstore.Sandbox, sc *runtimeapi.LinuxContainerSecurityContext) (process, mount string, err error) {
	o := sc.GetSelinuxOptions()
	if !s.host.SELinux || !s.labelled(o) && !s.labelled(pod.Config.GetLinux().GetSecurityContext().GetSelinuxOptions()) {
		return "", "", nil
	}
	if pod.ProcessLabel == "" {
		return "", "", errNoPolicy
	}
	return withOptions(pod.ProcessLabel, pod.MountLabel, o, sc.GetPrivileged())
}

// withOptions changes labels and has the kernel check them against its policy.
func withOptions(process, mount string, o *runtimeapi.SELinuxOption, privileged bool) (string, string, error) {
	p, err := selinux.NewContext(process)
	if err != nil {
		return "", "", fmt.Errorf("SELinux label %q: %w", process, err)
	}
	m, err := selinux.NewContext(mount)
	if err != nil {
		return "", "", fmt.Errorf("SELinux label %q: %w", mount, err)
	}
	if privileged {
		p["type"], p["level"] = privilegedType, "s0"
	}
	set := func(c selinux.Context, name, value string) {
		if value != "" {
			c[name] = value
		}
	}
	set(p, "user", o.GetUser())
	set(m, "user", o.GetUser())
	set(p, "role", o.GetRole())
	set(p, "type", o.GetType())
	set(p, "level", o.GetLevel())
	set(m, "level", o.GetLevel())
	for what, label := range map[string]string{"processes": p.Get(), "files": m.Get()} {
		if err := selinux.SecurityCheckContext(label); err != nil {
			return "", "", invalid("SELinux label %q for the container's %s is not one that this host's policy has: %v", label, what, err)
		}
	}
	return p.Get(), m.Get(), nil
}

// relabel gives a host path, with all below it, to a container. What has no
// labels is left as it is; the library refuses the node's own directories.
func relabel(path, label string) error {
	if label == "" || path == "" {
		return nil
	}
	err := selinux.Chcon(path, label, true)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EROFS) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("label %s for the container as %s: %w", path, label, err)
	}
	return nil
}

// relabelMounts does that for what the container mounts and what its pod keeps
// for it.
func relabelMounts(in *translate.Input) error {
	if in.MountLabel == "" {
		return nil
	}
	paths := []string{in.Sandbox.ResolvConf, in.Sandbox.HostsFile, in.Sandbox.HostnameFile}
	if in.Sandbox.ShmPath != "/dev/shm" { // the node's
		paths = append(paths, in.Sandbox.ShmPath)
	}
	for _, m := range in.Mounts {
		if m.Request.GetSelinuxRelabel() && m.Request.GetImage().GetImage() == "" {
			paths = append(paths, m.Source)
		}
	}
	for _, p := range paths {
		if err := relabel(p, in.MountLabel); err != nil {
			return err
		}
	}
	return nil
}
