package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// makeNamespaces makes the sandbox's namespaces and pins them.
func (m *Manager) makeNamespaces(s *Sandbox, p places) error {
	if s.userns() {
		return onThread(func() error { return m.makeInUserns(s, p) })
	}
	return onThread(func() error { return m.unshare(s, p) })
}

// unshare makes them by this thread. The first process of a shared PID
// namespace is started from it and so is in the others too.
func (m *Manager) unshare(s *Sandbox, p places) error {
	cfg := s.Config
	flags := 0
	if !cfg.HostIPC {
		flags |= unix.CLONE_NEWIPC
	}
	if !cfg.HostUTS {
		flags |= unix.CLONE_NEWUTS
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare namespaces: %w", err)
	}
	if cfg.NetNSPath != "" {
		if err := joinNetwork(cfg.NetNSPath); err != nil {
			return err
		}
	}
	if !cfg.HostUTS && cfg.Hostname != "" {
		if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", cfg.Hostname, err)
		}
	}
	if err := cfg.writeSysctls(); err != nil {
		return err
	}
	if !cfg.HostIPC {
		if err := pin("/proc/thread-self/ns/ipc", p.pin("ipc")); err != nil {
			return err
		}
	}
	if !cfg.HostUTS {
		if err := pin("/proc/thread-self/ns/uts", p.pin("uts")); err != nil {
			return err
		}
	}
	if !cfg.SharedPID {
		return nil
	}
	first, err := m.startPause(s, false)
	if err != nil {
		return err
	}
	defer first.close()
	atPaused.Reach()
	if err := pin(procNS(first.pid, "pid"), p.pin("pid")); err != nil {
		return err
	}
	return first.let()
}

func procNS(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/ns/" + name }

func joinNetwork(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join network namespace %s: %w", path, err)
	}
	return nil
}

// pin keeps a namespace by mounting its file on target.
func pin(source, target string) error {
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o400)
	if err != nil {
		return fmt.Errorf("pin namespace: %w", err)
	}
	f.Close()
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin namespace %s on %s: %w", source, target, err)
	}
	return nil
}

// unmount takes every mount off target; none is no error.
func unmount(target string) error {
	for {
		err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// pinned says that target is a namespace and not the file below one.
func pinned(target string) bool {
	var st unix.Statfs_t
	return unix.Statfs(target, &st) == nil && st.Type == unix.NSFS_MAGIC
}

func mountShm(p places, cfg Config) error {
	size := cfg.ShmBytes
	if size == 0 {
		size = DefaultShmBytes
	}
	if err := os.Mkdir(p.shm(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("shared memory: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	uid, gid := cfg.root()
	data := fmt.Sprintf("mode=1777,size=%d,uid=%d,gid=%d", size, uid, gid)
	if err := unix.Mount("shm", p.shm(), "tmpfs", flags, data); err != nil {
		return fmt.Errorf("mount shared memory of %d bytes: %w", size, err)
	}
	return nil
}
