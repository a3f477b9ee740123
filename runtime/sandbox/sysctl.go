package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// ErrSysctl marks a setting that a pod may not have.
var ErrSysctl = errors.New("sysctl is not allowed")

// sysctlPath is the file of a sysctl below /proc/sys. Only settings of a
// namespace that is the pod's own are let through: any other would change the
// host (CVE-2022-0811 smuggled one behind an allowed name).
//
// Both forms of a name are read, as sysctl(8) does: if '/' comes first it
// separates, else '.' does and '/' stands for a dot in a name
// (net.ipv4.conf.eth0/100.forwarding).
func (c Config) sysctlPath(name string) (string, error) {
	file := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		file = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	if file == "" || path.Clean("/"+file) != "/"+file || strings.ContainsAny(file, " \t\n\x00+=") {
		return "", fmt.Errorf("%w: %q is not a name", ErrSysctl, name)
	}
	switch {
	case strings.HasPrefix(file, "net/"):
		if c.NetNSPath == "" && !c.userns() {
			return "", fmt.Errorf("%w: %q with the host's network", ErrSysctl, name)
		}
	case isIPC(file):
		if c.HostIPC {
			return "", fmt.Errorf("%w: %q with the host's IPC", ErrSysctl, name)
		}
	case file == "kernel/domainname":
		if c.HostUTS {
			return "", fmt.Errorf("%w: %q with the host's UTS", ErrSysctl, name)
		}
	default:
		return "", fmt.Errorf("%w: %q is not of a namespace", ErrSysctl, name)
	}
	return file, nil
}

// isIPC knows the settings of an IPC namespace, by name: a prefix would let in
// others.
func isIPC(file string) bool {
	switch file {
	case "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
		"kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(file, "fs/mqueue/")
}

// writeSysctls sets the settings in the namespaces of this thread.
func (c Config) writeSysctls() error {
	for name, value := range c.Sysctls {
		file, err := c.sysctlPath(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join("/proc/sys", file), []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s to %q: %w", name, value, err)
		}
	}
	return nil
}
