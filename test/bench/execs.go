package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// execCounter counts the programs that a set of processes and their offspring start. The kernel's process events
// (connector, CN_IDX_PROC of linux/cn_proc.h) tell of every fork and exec of the machine.
type execCounter struct {
	fd   int
	done chan struct{}

	mu     sync.Mutex
	family map[uint32]bool // by process
	execs  int
	lost   bool
	ending bool
}

const (
	cnProc      = 1 // CN_IDX_PROC, CN_VAL_PROC
	cnListen    = 1 // PROC_CN_MCAST_LISTEN
	eventFork   = 1
	eventExec   = 2
	netlinkHead = 16
	cnHead      = 20
	eventHead   = 16 // what, cpu, timestamp
)

func countExecs(pids []int) (*execCounter, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("process events: %w", err)
	}
	c := &execCounter{fd: fd, done: make(chan struct{}), family: map[uint32]bool{}}
	for _, p := range pids {
		c.family[uint32(p)] = true
	}
	message := make([]byte, netlinkHead+cnHead+4)
	order := binary.NativeEndian
	order.PutUint32(message, uint32(len(message)))
	order.PutUint16(message[4:], unix.NLMSG_DONE)
	order.PutUint32(message[netlinkHead:], cnProc)
	order.PutUint32(message[netlinkHead+4:], cnProc)
	order.PutUint16(message[netlinkHead+16:], 4)
	order.PutUint32(message[netlinkHead+cnHead:], cnListen)
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnProc}),
		unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("process events: %w", err), unix.Close(fd))
	}
	go c.read()
	return c, nil
}

func (c *execCounter) read() {
	defer close(c.done)
	buf := make([]byte, 4096)
	for !c.stopped() {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS):
			c.mu.Lock()
			c.lost = true
			c.mu.Unlock()
		case err != nil:
			return
		default:
			c.event(buf[:n])
		}
	}
}

func (c *execCounter) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

func (c *execCounter) event(b []byte) {
	if len(b) < netlinkHead+cnHead+eventHead+16 {
		return
	}
	order := binary.NativeEndian
	b = b[netlinkHead+cnHead:]
	what, data := order.Uint32(b), b[eventHead:]
	c.mu.Lock()
	defer c.mu.Unlock()
	switch what {
	case eventFork: // parent pid, parent tgid, child pid, child tgid
		if c.family[order.Uint32(data[4:])] {
			c.family[order.Uint32(data[12:])] = true
		}
	case eventExec: // pid, tgid
		if c.family[order.Uint32(data[4:])] {
			c.execs++
		}
	}
}

// stop returns how many programs were started.
func (c *execCounter) stop() (int, error) {
	time.Sleep(200 * time.Millisecond) // the last events are under way; nothing tells that they came
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	<-c.done
	if c.lost {
		return c.execs, errors.Join(errors.New("process events were lost"), unix.Close(c.fd))
	}
	return c.execs, unix.Close(c.fd)
}
