package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("no such sandbox")
	ErrExists   = errors.New("sandbox exists")
)

// ManagerConfig says where a Manager keeps its things.
type ManagerConfig struct {
	StateDir   string // required, absolute; on tmpfs
	KeeperPath string // the keelson-keeper program; needed for SharedPID only
	Systemd    bool   // cgroups named *.slice are systemd's; see cgroup.Hierarchy
	Log        *slog.Logger
}

// Config is a sandbox to create.
type Config struct {
	ID        string
	Hostname  string
	NetNSPath string            // "": the host's network
	HostIPC   bool              // the host's IPC namespace and /dev/shm
	HostUTS   bool              // the host's name; Hostname is not set then
	SharedPID bool              // one PID namespace for all containers
	Sysctls   map[string]string // of the namespaces above only
	// UIDs and GIDs make a user namespace that owns all other namespaces of the
	// pod, a network's too: NetNSPath must be empty then.
	UIDs, GIDs   []IDMap
	CgroupParent string                // the pod's cgroup, below the cgroup root; "": none
	Resources    *specs.LinuxResources // limits of the pod's cgroup; nil: none
	ShmBytes     int64                 // size of /dev/shm; 0: DefaultShmBytes
	Label        string                // SELinux', of the shared PID namespace's first process' root; "": none
}

// IDMap is a range of ids of a user namespace: Container and the following are
// Host and the following outside.
type IDMap struct{ Container, Host, Size uint32 }

// userns says that the sandbox has a user namespace of its own.
func (c Config) userns() bool { return len(c.UIDs)+len(c.GIDs) > 0 }

// root is what the user namespace's root is outside of it.
func (c Config) root() (uid, gid int) { return hostID(c.UIDs), hostID(c.GIDs) }

func hostID(maps []IDMap) int {
	for _, m := range maps {
		if m.Container == 0 {
			return int(m.Host)
		}
	}
	return 0
}

// DefaultShmBytes is the size of a pod's /dev/shm, as elsewhere in the field.
const DefaultShmBytes = 64 << 20

// Sandbox is one that exists. It is a value: nobody changes it.
type Sandbox struct {
	Config
	// Namespaces are the paths of those that are not the host's, ready for an
	// OCI spec.
	Namespaces map[specs.LinuxNamespaceType]string
	ShmPath    string // to be bound to /dev/shm
	CgroupPath string // the containers' cgroups go below it
	CreatedAt  time.Time
	// Ready says that everything of it was in place when it was looked at:
	// false after a reboot, or when the shared PID namespace's first process
	// was killed.
	Ready bool
}

// validID is a name that is safe as one path component and as a cgroup.
var validID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// maxHostname is the kernel's: __NEW_UTS_LEN.
const maxHostname = 64

func (c Config) check() error {
	switch {
	case !validID.MatchString(c.ID):
		return fmt.Errorf("sandbox id %.140q is not a name of letters, digits, '_', '.' and '-'", c.ID)
	case len(c.Hostname) > maxHostname:
		return fmt.Errorf("sandbox %s: host name has %d bytes, more than %d", c.ID, len(c.Hostname), maxHostname)
	case c.CgroupParent != "" && !filepath.IsAbs(c.CgroupParent):
		return fmt.Errorf("sandbox %s: cgroup parent %q is not absolute", c.ID, c.CgroupParent)
	case (len(c.UIDs) == 0) != (len(c.GIDs) == 0):
		return fmt.Errorf("sandbox %s: a user namespace needs uids and gids", c.ID)
	case c.userns() && c.NetNSPath != "":
		return fmt.Errorf("sandbox %s: in a user namespace it makes its network namespace itself", c.ID)
	case c.ShmBytes < 0:
		return fmt.Errorf("sandbox %s: %d bytes of shared memory", c.ID, c.ShmBytes)
	}
	for name := range c.Sysctls {
		if _, err := c.sysctlPath(name); err != nil {
			return fmt.Errorf("sandbox %s: %w", c.ID, err)
		}
	}
	return nil
}

// places are the paths of a sandbox's things.
type places struct{ dir string }

func (p places) record() string       { return filepath.Join(p.dir, "sandbox.json") }
func (p places) shm() string          { return filepath.Join(p.dir, "shm") }
func (p places) pins() string         { return filepath.Join(p.dir, "ns") }
func (p places) pin(ns string) string { return filepath.Join(p.dir, "ns", ns) }

// describe is the sandbox that cfg makes at p.
func describe(cfg Config, p places, at time.Time) Sandbox {
	s := Sandbox{
		Config: cfg, CgroupPath: cfg.CgroupParent, CreatedAt: at,
		Namespaces: map[specs.LinuxNamespaceType]string{}, ShmPath: "/dev/shm",
	}
	if cfg.NetNSPath != "" {
		s.Namespaces[specs.NetworkNamespace] = cfg.NetNSPath
	}
	if cfg.userns() {
		s.Namespaces[specs.UserNamespace] = p.pin("user")
		s.Namespaces[specs.NetworkNamespace] = p.pin("net")
	}
	if !cfg.HostUTS {
		s.Namespaces[specs.UTSNamespace] = p.pin("uts")
	}
	if !cfg.HostIPC {
		s.Namespaces[specs.IPCNamespace] = p.pin("ipc")
		s.ShmPath = p.shm()
	}
	if cfg.SharedPID {
		s.Namespaces[specs.PIDNamespace] = p.pin("pid")
	}
	return s
}
