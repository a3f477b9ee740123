package sandbox

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs fn on a thread that ends with it, whatever namespaces fn left
// it in. The process's first thread never ends, and /proc/self speaks of it,
// so it is not used: it is kept busy until another one was found.
func onThread(fn func() error) error {
	result := make(chan error, 1)
	go func() { // ends with fn
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			result <- fn()
			return
		}
		defer runtime.UnlockOSThread()
		result <- onThread(fn)
	}()
	return <-result
}
