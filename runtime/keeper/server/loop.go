package server

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// loop is the event loop: one goroutine in epoll_wait. Watches belong to it
// and may be touched only from functions that it runs.
type loop struct {
	epfd, wakefd int
	watches      map[int32]*watch
	lastToken    int32
	ready        []func() bool // work that goes on: called until it says false

	mu      sync.Mutex
	tasks   []func()
	stopped bool
}

// watch is one descriptor that the loop waits for. The descriptor is its
// owner's.
type watch struct {
	fd    int
	token int32
	call  func(events uint32)
}

func newLoop() (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &loop{epfd: epfd, wakefd: wakefd, watches: map[int32]*watch{}}
	_, err = l.watch(wakefd, unix.EPOLLIN, func(uint32) {
		var drop [8]byte
		_, _ = unix.Read(wakefd, drop[:])
	})
	if err != nil {
		unix.Close(epfd)
		unix.Close(wakefd)
		return nil, err
	}
	return l, nil
}

// watch calls fn from the loop when fd has one of events.
func (l *loop) watch(fd int, events uint32, fn func(uint32)) (*watch, error) {
	l.lastToken++
	w := &watch{fd: fd, token: l.lastToken, call: fn}
	ev := unix.EpollEvent{Events: events, Fd: w.token}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return nil, fmt.Errorf("watch descriptor: %w", err)
	}
	l.watches[w.token] = w
	return w, nil
}

// change sets the events that w waits for (hang-ups come always).
func (l *loop) change(w *watch, events uint32) {
	ev := unix.EpollEvent{Events: events, Fd: w.token}
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, w.fd, &ev)
}

// drop stops waiting; events already fetched for w are lost on purpose.
func (l *loop) drop(w *watch) {
	if w == nil || l.watches[w.token] != w {
		return
	}
	delete(l.watches, w.token)
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, w.fd, nil)
}

// post hands fn to the loop and does not wait. It reports false once the loop
// has stopped.
func (l *loop) post(fn func()) bool {
	l.mu.Lock()
	stopped := l.stopped
	if !stopped {
		l.tasks = append(l.tasks, fn)
	}
	l.mu.Unlock()
	if !stopped {
		one := [8]byte{1}
		_, _ = unix.Write(l.wakefd, one[:])
	}
	return !stopped
}

// do hands fn to the loop and waits until it ran. It must not be called from
// the loop.
func (l *loop) do(fn func()) bool {
	done := make(chan struct{})
	if !l.post(func() { defer close(done); fn() }) {
		return false
	}
	<-done
	return true
}

// run serves until stop says so after a round. Tasks still queued are run.
func (l *loop) run(stop func() bool) error {
	events := make([]unix.EpollEvent, 64)
	for {
		wait := -1
		if len(l.ready) > 0 {
			wait = 0
		}
		n, err := unix.EpollWait(l.epfd, events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll wait: %w", err)
		}
		for i := range max(n, 0) {
			if w, ok := l.watches[events[i].Fd]; ok {
				w.call(events[i].Events)
			}
		}
		l.runTasks()
		l.runReady()
		if stop() {
			l.mu.Lock()
			l.stopped = true
			l.mu.Unlock()
			l.runTasks()
			return nil
		}
	}
}

func (l *loop) runTasks() {
	l.mu.Lock()
	tasks := l.tasks
	l.tasks = nil
	l.mu.Unlock()
	for _, fn := range tasks {
		fn()
	}
}

func (l *loop) runReady() {
	ready := l.ready
	l.ready = nil
	for _, fn := range ready {
		if fn() {
			l.ready = append(l.ready, fn)
		}
	}
}
