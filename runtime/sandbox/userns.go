package sandbox

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// inUserns are the namespaces beside user and PID that the sandbox has.
func (c Config) inUserns() map[string]int {
	out := map[string]int{"net": unix.CLONE_NEWNET}
	if !c.HostIPC {
		out["ipc"] = unix.CLONE_NEWIPC
	}
	if !c.HostUTS {
		out["uts"] = unix.CLONE_NEWUTS
	}
	return out
}

// makeInUserns makes a user namespace and in it the others, so that its root
// has power over them (user_namespaces(7)). A process of several threads cannot
// join a user namespace, so one clone makes all: its process is the shared PID
// namespace's first, or ends here.
func (m *Manager) makeInUserns(s *Sandbox, p places) (err error) {
	first, err := m.startPause(s, true)
	if err != nil {
		return err
	}
	defer func() {
		defer first.close()
		if err == nil && s.SharedPID {
			err = first.let()
		}
		if err != nil || !s.SharedPID {
			if end := killAndWait(first.pid); err == nil {
				err = end
			}
		}
	}()
	atPaused.Reach()
	pins := []string{"user"}
	if s.SharedPID {
		pins = append(pins, "pid")
	}
	kinds := s.inUserns()
	for name := range kinds {
		pins = append(pins, name)
	}
	for _, name := range pins {
		if err := pin(procNS(first.pid, name), p.pin(name)); err != nil {
			return err
		}
	}
	for name, flag := range kinds {
		if err := join(p.pin(name), flag); err != nil {
			return err
		}
	}
	if !s.HostUTS && s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", s.Hostname, err)
		}
	}
	return s.writeSysctlsAsRoot()
}

// writeSysctlsAsRoot writes as the user namespace's root: an IPC setting of
// another's namespace is not even the node's root's to set. It is this thread's
// identity alone that changes, and the thread ends with its work.
func (c Config) writeSysctlsAsRoot() error {
	if len(c.Sysctls) == 0 {
		return nil
	}
	uid, _ := c.root()
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
		return fmt.Errorf("become root of the user namespace: %w", errno)
	}
	return c.writeSysctls()
}

func join(path string, flag int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open namespace", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, flag); err != nil {
		return fmt.Errorf("join namespace %s: %w", path, err)
	}
	return nil
}

// cloneInUserns is how the process is made that makes the namespaces.
func (c Config) cloneInUserns(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= unix.CLONE_NEWUSER
	for _, flag := range c.inUserns() {
		attr.Cloneflags |= uintptr(flag)
	}
	attr.UidMappings, attr.GidMappings = sysMaps(c.UIDs), sysMaps(c.GIDs)
	attr.GidMappingsEnableSetgroups = true // or no container could have supplemental groups
	attr.Credential = &syscall.Credential{}
	if !c.SharedPID {
		attr.Cloneflags &^= unix.CLONE_NEWPID
		attr.Pdeathsig = unix.SIGKILL // of use to this thread only
	}
}

func sysMaps(in []IDMap) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, m := range in {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.Container), HostID: int(m.Host), Size: int(m.Size)})
	}
	return out
}
