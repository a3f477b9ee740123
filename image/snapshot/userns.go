package snapshot

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// userNamespace makes a user namespace with the maps, to be used as the key of
// id-mapped mounts. A namespace needs a process to begin with: one is started
// and stopped by ptrace before its first instruction, and killed once the
// namespace is held open.
func userNamespace(uids, gids []IDMap) (*os.File, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		Ptrace:      true,
		Pdeathsig:   syscall.SIGKILL,
		UidMappings: sysMaps(uids),
		GidMappings: sysMaps(gids),
	}
	var f *os.File
	done := make(chan error)
	go func() { // ptrace is a thread's relation: start, open and kill on one; the caller waits
		done <- func() error {
			lockThread()
			if err := cmd.Start(); err != nil {
				return fmt.Errorf("make user namespace: %w", err)
			}
			defer func() {
				cmd.Process.Kill()
				cmd.Wait()
			}()
			var err error
			f, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
			if err != nil {
				return fmt.Errorf("open user namespace: %w", err)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	return f, nil
}

func sysMaps(maps []IDMap) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, 0, len(maps))
	for _, m := range maps {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.Container), HostID: int(m.Host), Size: int(m.Size)})
	}
	return out
}

// lockThread ties the goroutine to its thread for good: the thread ends with it.
func lockThread() { runtime.LockOSThread() }
