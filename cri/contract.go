package cri

import (
	"errors"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var errSbNotFound = errors.New("sandbox not found")

type (
	sandboxConfig struct {
		ID, Hostname     string
		NetNSPath        string
		HostIPC, HostUTS bool
		SharedPID        bool
		Sysctls          map[string]string
		CgroupParent     string
		Resources        *specs.LinuxResources
		ShmBytes         int64
	}
	sandboxSandbox struct {
		sandboxConfig
		Namespaces map[specs.LinuxNamespaceType]string
		ShmPath    string
		CgroupPath string
		CreatedAt  time.Time
	}
)
