package netfilter

import (
	"context"
	"maps"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// legacyEvery is how often the tables of legacy iptables are looked at, which tells nobody of its changes. Shorter than the ten seconds in which
// what others remove is to be back.
var legacyEvery = 5 * time.Second

// getInfo is IPT_SO_GET_INFO.
const getInfo = 64

// shape is struct ipt_getinfo: a table's size, its number of rules and where its built-in chains begin and end.
type shape struct {
	Name                 [32]byte
	Hooks                uint32
	Entries, Underflows  [5]uint32
	RuleCount, ByteCount uint32
}

// canary notices that somebody changed the tables of legacy iptables, by system calls that cost next to nothing. Its user holds the turn.
type canary struct {
	fd      int
	seen    map[Table]shape
	strange bool // a change by others has been seen
}

// legacy tells whether our programs are the legacy variant.
func (t *IPTables) legacy(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, t.cfg.Restore, "--version").CombinedOutput()
	return err == nil && !strings.Contains(string(out), "nf_tables")
}

// newCanary returns none where the kernel cannot be asked.
func newCanary() *canary {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil
	}
	return &canary{fd: fd, seen: map[Table]shape{}}
}

// look compares the tables with how they were.
func (c *canary) look() {
	c.strange = c.strange || !maps.Equal(c.seen, c.shapes())
}

// accept takes the tables as they are.
func (c *canary) accept() { c.seen = c.shapes() }

func (c *canary) shapes() map[Table]shape {
	out := map[Table]shape{}
	for _, table := range []Table{Raw, Mangle, NAT, Filter} {
		var s shape
		copy(s.Name[:], table)
		size := uint32(unsafe.Sizeof(s))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(c.fd), unix.SOL_IP, getInfo, uintptr(unsafe.Pointer(&s)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			out[table] = s
		}
	}
	return out
}

// changes wakes c whenever others changed the tables of legacy iptables, until ctx ends. Of nf_tables the kernel tells by itself.
func (t *IPTables) changes(ctx context.Context, c chan<- struct{}) {
	if !t.legacy(ctx) || t.acquire(ctx) != nil {
		return
	}
	if t.canary = newCanary(); t.canary == nil {
		t.release()
		return
	}
	t.canary.accept()
	t.release()
	defer func() {
		t.turn <- struct{}{}
		unix.Close(t.canary.fd)
		t.canary = nil
		t.release()
	}()
	wake(c) // whatever happened before
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(legacyEvery):
		}
		if t.acquire(ctx) != nil {
			return
		}
		t.canary.look()
		if t.canary.strange {
			t.canary.accept()
			t.canary.strange = false
			wake(c)
		}
		t.release()
	}
}
