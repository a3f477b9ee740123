package link

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestWhole: a list is asked for again while it was interrupted, and only then.
func TestWhole(t *testing.T) {
	other := errors.New("other")
	for _, row := range []struct {
		answers []error
		want    error
	}{
		{[]error{nil}, nil}, {[]error{netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted, nil}, nil},
		{[]error{netlink.ErrDumpInterrupted, other, nil}, other},
	} {
		n := 0
		list, err := Whole(func() ([]int, error) { n++; return []int{n}, row.answers[n-1] })
		if !errors.Is(err, row.want) || len(list) != 1 || list[0] != n {
			t.Errorf("answers %v: list %v, error %v after %d tries", row.answers, list, err, n)
		}
	}
	if _, err := Whole(func() ([]int, error) { return nil, netlink.ErrDumpInterrupted }); !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Errorf("never whole: %v", err)
	}
}

// TestListWhileLinksChange lists the pods' links while others come and go, in a namespace of the test's own.
func TestListWhileLinksChange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes links")
	}
	type made struct {
		links *Links
		churn *netlink.Handle
		err   error
	}
	ready := make(chan made)
	go func() { // ends at once; its thread and the namespace's last user are the handles
		runtime.LockOSThread()
		var m made
		if m.err = unix.Unshare(unix.CLONE_NEWNET); m.err == nil {
			if m.links, m.err = Open("whole"); m.err == nil {
				m.churn, m.err = netlink.NewHandle(unix.NETLINK_ROUTE)
			}
		}
		ready <- m
	}()
	m := <-ready
	if m.err != nil {
		t.Fatal(m.err)
	}
	defer m.links.Close()
	defer m.churn.Close()
	veth := func(name string) *netlink.Veth {
		return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer-" + name}
	}
	const pods = 100 // more than the kernel tells in one message
	for slot := range pods {
		if err := m.links.h.LinkAdd(veth(m.links.Name(slot))); err != nil {
			t.Fatal(err)
		}
	}
	var stop atomic.Bool
	ended := make(chan error, 1)
	go func() { // ends with stop
		var err error
		for !stop.Load() && err == nil {
			if err = m.churn.LinkAdd(veth("other")); err == nil {
				err = m.churn.LinkDel(veth("other"))
			}
		}
		ended <- err
	}()
	for range 100 {
		if list, err := m.links.List(); err != nil || len(list) != pods {
			t.Errorf("%d pod links, %v; want %d", len(list), err, pods)
			break
		}
	}
	stop.Store(true)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
