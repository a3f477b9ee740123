package translate

import (
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrInvalid is wrapped by every error that the request itself caused.
var ErrInvalid = errors.New("invalid request")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Input is everything that a container's spec depends on.
type Input struct {
	// ID is the container's id, the last component of its cgroup.
	ID     string
	Config *runtimeapi.ContainerConfig
	Pod    *runtimeapi.PodSandboxConfig
	Image  ocispec.ImageConfig
	User   User
	// Rootfs is the path of the mounted root filesystem.
	Rootfs  string
	Sandbox Sandbox
	// TargetPID is the process whose PID namespace NamespaceMode TARGET joins.
	TargetPID int
	// Mounts are the request's mounts with their sources resolved, in the
	// request's order.
	Mounts  []Mount
	Devices []Device
	// SeccompProfile is the JSON of a Localhost profile, nil for other kinds.
	SeccompProfile []byte
	// AppArmorDefault is the runtime's profile, loaded; "" where there is none.
	AppArmorDefault string
	// ProcessLabel and MountLabel are SELinux'; "" for none.
	ProcessLabel, MountLabel string
	Host                     Host
}

// Sandbox is what a container takes over from its pod.
type Sandbox struct {
	// Namespaces holds the path of each namespace that the pod has pinned. One
	// that is absent is the node's.
	Namespaces map[specs.LinuxNamespaceType]string
	// CgroupPath is the pod's cgroup: a slice's path when the driver is systemd.
	CgroupPath string
	// ShmPath, ResolvConf, Hostname and Hosts are host paths that are bound into
	// every container that brings no mount of its own for them; "" binds nothing.
	ShmPath, ResolvConf, HostnameFile, HostsFile string
	// Hostname becomes the HOSTNAME variable.
	Hostname string
}

// User is the identity of the first process, resolved in the image.
type User struct {
	UID, GID uint32
	// Groups are the groups that the image's /etc/group gives the user.
	Groups []uint32
	// Username is the name that was resolved, "" when a number was given.
	Username string
}

// Mount is a requested mount whose source was resolved on the host.
type Mount struct {
	// Source is an existing host path without symlinks, or the mounted image.
	Source string
	// Request is the mount as it was asked for.
	Request *runtimeapi.Mount
	// Peer tells whether the source's mount point is shared or a slave.
	Peer Peer
}

// Peer is the propagation type of the mount point that holds a source.
type Peer int

// The propagation types that matter to a bind mount.
const (
	PeerPrivate Peer = iota
	PeerSlave
	PeerShared
)

// Device is a host device node that was found for a requested device.
type Device struct {
	// Path is where the container sees it.
	Path string
	// Type is 'c' or 'b'.
	Type         string
	Major, Minor int64
	Mode         uint32
	UID, GID     uint32
	// Permissions are the device cgroup's letters, of "rwm".
	Permissions string
}

// Host is what the machine offers.
type Host struct {
	// Unified is true for cgroup v2, false for v1 and hybrid.
	Unified bool
	// Systemd selects the systemd cgroup driver.
	Systemd bool
	// Capabilities are those the runtime holds ("CAP_CHOWN"); no container can
	// get another.
	Capabilities []string
	// OOMScoreAdjMin is the least value the runtime may set.
	OOMScoreAdjMin int
	// AppArmor and SELinux tell whether the kernel has them on.
	AppArmor, SELinux bool
	// IgnoreSELinux: where it is off, its options are without effect instead of
	// an error.
	IgnoreSELinux bool
	// Hugetlb tells whether the hugetlb controller exists.
	Hugetlb bool
	// SwapAccounting tells whether the memory controller limits swap.
	SwapAccounting bool
	// Devices are all of the host's device nodes, for privileged containers.
	Devices []Device
	// Userns tells whether pods may have user namespaces.
	Userns bool
	// Rlimits are set on every container's first process.
	Rlimits []specs.POSIXRlimit
}
