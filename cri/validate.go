package cri

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of the maps in a request. Kubernetes allows 256 KiB of annotations; the
// kubelet adds a few of its own.
const (
	maxMapBytes   = 1 << 20
	maxMapEntries = 16384
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errInvalid, fmt.Sprintf(format, args...))
}

func checkMap(what string, m map[string]string) error {
	size := 0
	for k, v := range m {
		size += len(k) + len(v)
	}
	if len(m) > maxMapEntries || size > maxMapBytes {
		return fmt.Errorf("%w: %s hold %d entries and %d bytes, more than %d or %d", errTooBig, what, len(m), size, maxMapEntries, maxMapBytes)
	}
	return nil
}

// knownEnums refuses a number that the API gives no name, wherever in m it is.
func knownEnums(m protoreflect.Message) (err error) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap(): // of texts, all of them
		case f.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = knownEnum(f, v.List().Get(i))
			}
		default:
			err = knownEnum(f, v)
		}
		return err == nil
	})
	return err
}

func knownEnum(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch f.Kind() {
	case protoreflect.EnumKind:
		if f.Enum().Values().ByNumber(v.Enum()) == nil {
			return invalid("%s of %s has the unknown value %d", f.Name(), f.Parent().Name(), v.Enum())
		}
	case protoreflect.MessageKind:
		return knownEnums(v.Message())
	}
	return nil
}

func checkNames(parts ...string) error {
	for _, p := range parts {
		if strings.ContainsRune(p, 0) {
			return invalid("a name in the metadata holds a NUL byte")
		}
	}
	return nil
}

func checkSandboxConfig(c *runtimeapi.PodSandboxConfig) error {
	m := c.GetMetadata()
	switch {
	case c == nil:
		return invalid("no sandbox config")
	case m == nil:
		return invalid("the sandbox config has no metadata")
	case m.GetName() == "" || m.GetNamespace() == "" || m.GetUid() == "":
		return invalid("sandbox metadata needs name, namespace and uid; got %q, %q, %q", m.GetName(), m.GetNamespace(), m.GetUid())
	}
	if err := knownEnums(c.ProtoReflect()); err != nil {
		return err
	}
	if err := checkNames(m.GetName(), m.GetNamespace(), m.GetUid()); err != nil {
		return err
	}
	if err := checkMap("labels", c.GetLabels()); err != nil {
		return err
	}
	if err := checkMap("annotations", c.GetAnnotations()); err != nil {
		return err
	}
	if len(c.GetHostname()) > 64 || strings.ContainsAny(c.GetHostname(), "\x00\n/") {
		return invalid("hostname %q is longer than 64 bytes or holds a character that none may hold", c.GetHostname())
	}
	if d := c.GetLogDirectory(); d != "" && !filepath.IsAbs(d) {
		return invalid("log directory %q is not absolute", d)
	}
	for _, line := range slices.Concat(c.GetDnsConfig().GetServers(), c.GetDnsConfig().GetSearches(), c.GetDnsConfig().GetOptions()) {
		if strings.ContainsAny(line, "\n\r\x00") {
			return invalid("DNS config entry %q holds a line break", line)
		}
	}
	for _, p := range c.GetPortMappings() {
		if err := checkPortMapping(p); err != nil {
			return err
		}
	}
	if err := checkCgroupParent(c.GetLinux().GetCgroupParent()); err != nil {
		return err
	}
	sc := c.GetLinux().GetSecurityContext()
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil {
		return invalid("run_as_group is set without run_as_user")
	}
	if err := checkPodUserns(sc.GetNamespaceOptions()); err != nil {
		return err
	}
	return checkNamespaces(sc.GetNamespaceOptions())
}

func checkPortMapping(p *runtimeapi.PortMapping) error {
	if p.GetHostPort() < 0 || p.GetHostPort() > 65535 || p.GetContainerPort() < 0 || p.GetContainerPort() > 65535 {
		return invalid("port mapping %d -> %d is outside 0 to 65535", p.GetHostPort(), p.GetContainerPort())
	}
	if p.GetHostPort() != 0 && p.GetContainerPort() == 0 {
		return invalid("host port %d is mapped to no container port", p.GetHostPort())
	}
	if ip := p.GetHostIp(); ip != "" {
		if _, err := netip.ParseAddr(ip); err != nil {
			return invalid("host IP %q of port %d: %v", ip, p.GetHostPort(), err)
		}
	}
	return nil
}

func checkCgroupParent(p string) error {
	if strings.ContainsAny(p, "\x00\n") || slices.Contains(strings.Split(p, "/"), "..") {
		return invalid("cgroup parent %q", p)
	}
	return nil
}

func checkNamespaces(o *runtimeapi.NamespaceOption) error {
	for what, mode := range map[string]runtimeapi.NamespaceMode{"network": o.GetNetwork(), "ipc": o.GetIpc()} {
		if mode != runtimeapi.NamespaceMode_POD && mode != runtimeapi.NamespaceMode_NODE {
			return invalid("%s namespace mode %v; only POD and NODE are possible", what, mode)
		}
	}
	return checkUserns(o.GetUsernsOptions())
}

func checkUserns(u *runtimeapi.UserNamespace) error {
	if u == nil || u.GetMode() == runtimeapi.NamespaceMode_NODE {
		if len(u.GetUids())+len(u.GetGids()) > 0 {
			return invalid("id mappings are given for the node's user namespace")
		}
		return nil
	}
	if u.GetMode() != runtimeapi.NamespaceMode_POD {
		return invalid("user namespace mode %v; only POD and NODE are possible", u.GetMode())
	}
	for what, maps := range map[string][]*runtimeapi.IDMapping{"uid": u.GetUids(), "gid": u.GetGids()} {
		switch {
		case len(maps) != 1:
			return invalid("%d %s mappings for a user namespace; exactly one is possible", len(maps), what)
		case maps[0].GetContainerId() != 0:
			return invalid("the %s mapping of a user namespace begins at %d, not at 0", what, maps[0].GetContainerId())
		case maps[0].GetLength() == 0 || uint64(maps[0].GetHostId())+uint64(maps[0].GetLength()) > math.MaxUint32:
			return invalid("the %s mapping of a user namespace to %d ids from %d on is not within 32 bits", what, maps[0].GetLength(), maps[0].GetHostId())
		}
	}
	return nil
}

// checkPodUserns: without power over a namespace a pod cannot mount what belongs
// to it, so the node's PID and IPC namespaces are not to be had in another user's.
func checkPodUserns(o *runtimeapi.NamespaceOption) error {
	if userns(o) && (o.GetPid() == runtimeapi.NamespaceMode_NODE || o.GetIpc() == runtimeapi.NamespaceMode_NODE || o.GetNetwork() == runtimeapi.NamespaceMode_NODE) {
		return invalid("a pod with a user namespace cannot have the node's network, PID or IPC namespace")
	}
	return nil
}

// userns says whether the pod gets a user namespace of its own.
func userns(o *runtimeapi.NamespaceOption) bool {
	return o.GetUsernsOptions() != nil && o.GetUsernsOptions().GetMode() == runtimeapi.NamespaceMode_POD
}

func checkContainerConfig(c *runtimeapi.ContainerConfig) error {
	m := c.GetMetadata()
	switch {
	case c == nil:
		return invalid("no container config")
	case m == nil:
		return invalid("the container config has no metadata")
	case m.GetName() == "":
		return invalid("container metadata has no name")
	case c.GetImage().GetImage() == "":
		return invalid("the container config names no image")
	}
	if err := knownEnums(c.ProtoReflect()); err != nil {
		return err
	}
	if err := checkNames(m.GetName()); err != nil {
		return err
	}
	if err := checkMap("labels", c.GetLabels()); err != nil {
		return err
	}
	if err := checkMap("annotations", c.GetAnnotations()); err != nil {
		return err
	}
	if err := checkNamespaces(c.GetLinux().GetSecurityContext().GetNamespaceOptions()); err != nil {
		return err
	}
	for _, mt := range c.GetMounts() {
		if mt == nil || (mt.GetHostPath() == "") == (mt.GetImage().GetImage() == "") {
			return invalid("mount %q needs either a host path or an image", mt.GetContainerPath())
		}
		if mt.GetImage().GetImage() != "" && !mt.GetReadonly() {
			return invalid("mount %q of an image is not read-only, and an image cannot be written to", mt.GetContainerPath())
		}
	}
	return nil
}
