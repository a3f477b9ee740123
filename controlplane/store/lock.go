package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned (wrapped, with the owner's pid) when another process has the data directory.
var ErrLocked = errors.New("data directory is in use")

// lockDir takes the exclusive lock of dir. The lock ends with the process, whatever kills it; the pid in the file is
// only for the message. The file is never removed: a removed lock file could be locked twice.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		owner := "an unknown process"
		if b, _ := io.ReadAll(io.LimitReader(f, 32)); len(b) > 0 {
			owner = "process " + strings.TrimSpace(string(b))
		}
		return nil, fmt.Errorf("%w: %s is held by %s; stop it first, or choose another --data-dir", ErrLocked, dir, owner)
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write pid to %s: %w", path, err)
	}
	return f, nil
}
