package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const self = "/proc/thread-self/ns/net"

// Create makes a network namespace, runs inside in it and pins it at path, which must not exist; its folder must. After an
// error nothing is left. inside may be nil; it must not keep its goroutine's thread.
func Create(path string, inside func() error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("netns: mount point: %w", err)
	}
	f.Close()
	atPlace.Reach()
	err = thread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netns: unshare: %w", err)
		}
		if inside != nil {
			if err := inside(); err != nil {
				return err
			}
		}
		atInside.Reach()
		if err := unix.Mount(self, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("netns: pin at %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		os.Remove(path)
	}
	return err
}

// Adopt pins a namespace that somebody else made, at from, at path too, and runs inside in it. After an error nothing is left
// at path.
func Adopt(path, from string, inside func() error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("netns: mount point: %w", err)
	}
	f.Close()
	if !Pinned(from) {
		err = fmt.Errorf("netns: %s is no namespace", from)
	} else if err = unix.Mount(from, path, "", unix.MS_BIND, ""); err != nil {
		err = fmt.Errorf("netns: pin %s at %s: %w", from, path, err)
	} else {
		err = Do(path, inside)
	}
	if err != nil {
		return errors.Join(err, Remove(path))
	}
	return nil
}

// Do runs f in the namespace pinned at path. f must not start goroutines that are to stay in it.
func Do(path string, f func() error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("netns: open %s: %w", path, err)
	}
	defer unix.Close(fd)
	return thread(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netns: enter %s: %w", path, err)
		}
		return f()
	})
}

// Remove unpins the namespace: without processes in it, the kernel drops it with all its links in the background. Idempotent.
func Remove(path string) error {
	// NOFOLLOW: only the pin itself is ours to unmount.
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("netns: unpin %s: %w", path, err)
	}
	atUnmounted.Reach()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("netns: %w", err)
	}
	return nil
}

// Pinned tells whether path is a pinned namespace and not the empty file that a reboot leaves.
func Pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Host opens the namespace that the calling thread is in.
func Host() (*os.File, error) {
	f, err := os.Open(self)
	if err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	return f, nil
}

// thread runs f on a thread of its own, which ends with it.
func thread(f func() error) error {
	done := make(chan error, 1)
	go onThread(f, done) // ends with f; the caller waits
	return <-done
}

func onThread(f func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		done <- f() // never unlocked: the thread dies with the goroutine
		return
	}
	// The first thread of a process cannot end: the Go runtime would park it for ever, in the pod's namespace, and so keep that
	// alive. While we sit on it, another goroutine cannot get it.
	other := make(chan error, 1)
	go onThread(f, other)
	done <- <-other
	runtime.UnlockOSThread()
}
