package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/network/link"
)

// Config says where to speak and whom to tell.
type Config struct {
	// Skip leaves out interfaces by name: the pods' own. Optional.
	Skip func(name string) bool
	// Conflict is told of an address that another machine claims too. Optional; must return soon.
	Conflict func(netip.Addr, net.HardwareAddr)
	Log      *slog.Logger // optional
}

// Announcer speaks for a set of addresses. Run it once.
type Announcer struct {
	cfg  Config
	wake chan struct{}

	mu   sync.Mutex
	want map[netip.Addr]bool // replaced, never changed
}

// again is when a new address is announced, after its first time: the first packets on a link that just came up are often lost.
var again = []time.Duration{time.Second, 2 * time.Second}

// New makes an announcer that speaks for no address yet.
func New(cfg Config) *Announcer {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Skip == nil {
		cfg.Skip = func(string) bool { return false }
	}
	return &Announcer{cfg: cfg, wake: make(chan struct{}, 1), want: map[netip.Addr]bool{}}
}

// Set replaces the addresses. It does not wait; safe for concurrent use.
func (a *Announcer) Set(addrs []netip.Addr) {
	want := make(map[netip.Addr]bool, len(addrs))
	for _, addr := range addrs {
		if addr.Is4() {
			want[addr] = true
		}
	}
	a.mu.Lock()
	same := maps.Equal(a.want, want)
	a.want = want
	a.mu.Unlock()
	if !same {
		a.look()
	}
}

func (a *Announcer) look() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Announcer) wanted() map[netip.Addr]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.want
}

// Run speaks until ctx ends. Neighbours forget the addresses by themselves.
func (a *Announcer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	n := news{make(chan netlink.LinkUpdate, 16), make(chan netlink.AddrUpdate, 16)}
	lost := func(error) { a.look() } // a subscription that ends is told by its closed channel
	err := netlink.LinkSubscribeWithOptions(n.links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: lost})
	if err == nil {
		err = netlink.AddrSubscribeWithOptions(n.addrs, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: lost})
	}
	if err != nil {
		cancel()
		return fmt.Errorf("announce: follow the node's interfaces: %w", err)
	}
	r := &run{a: a, wires: map[int]*wire{}, told: map[told]int{}}
	defer r.close()
	defer cancel()
	for {
		var due <-chan time.Time
		next, err := r.reconcile()
		if err != nil {
			a.cfg.Log.Warn("not all load balancer addresses are announced; trying again", "error", err)
			next = time.Second
		}
		if next > 0 {
			due = time.After(next)
		}
		if !a.wait(ctx, &n, due) {
			return nil
		}
	}
}

// news is what the kernel tells of interfaces. A channel that is closed is set to nil.
type news struct {
	links chan netlink.LinkUpdate
	addrs chan netlink.AddrUpdate
}

// wait returns when there may be something to do; false: the end.
func (a *Announcer) wait(ctx context.Context, n *news, due <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-a.wake:
		case <-due:
		case l, open := <-n.links:
			if !open {
				n.links = nil
			} else if a.cfg.Skip(l.Attrs().Name) { // pods come and go
				continue
			}
		case _, open := <-n.addrs:
			if !open {
				n.addrs = nil
			}
		}
		return true
	}
}

// run is the state of Run's own goroutine.
type run struct {
	a     *Announcer
	wires map[int]*wire // by interface index
	told  map[told]int  // how often an address was announced on an interface
	wg    sync.WaitGroup
}

type told struct {
	index int
	addr  netip.Addr
}

// reconcile opens and closes sockets for what is wanted now and announces what is due; it returns when more is.
func (r *run) reconcile() (time.Duration, error) {
	want := r.a.wanted()
	places, err := r.places(want)
	if err != nil {
		return 0, err
	}
	var errs []error
	for index, w := range r.wires {
		if p, ok := places[index]; !ok || w.dead.Load() || w.name != p.name || !slices.Equal(w.mac, p.mac) {
			w.close()
			delete(r.wires, index)
			maps.DeleteFunc(r.told, func(t told, _ int) bool { return t.index == index })
		}
	}
	for index, p := range places {
		if r.wires[index] != nil {
			r.wires[index].speak(p.addrs)
			continue
		}
		w, err := open(p, r.a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.wires[index] = w
		r.wg.Go(w.answer) // ends when the wire is closed
	}
	maps.DeleteFunc(r.told, func(t told, _ int) bool { return !slices.Contains(places[t.index].addrs, t.addr) })
	var next time.Duration
	for index, w := range r.wires {
		for _, addr := range places[index].addrs {
			k := told{index, addr}
			n := r.told[k]
			if n > len(again) {
				continue
			}
			if err := w.announce(addr); err != nil {
				errs = append(errs, err)
			}
			if r.told[k] = n + 1; n < len(again) {
				next = again[n]
			}
		}
	}
	return next, errors.Join(errs...)
}

func (r *run) close() {
	for _, w := range r.wires {
		w.close()
	}
	r.wg.Wait()
}

// place is an interface and the addresses to speak for on it.
type place struct {
	index int
	name  string
	mac   net.HardwareAddr
	addrs []netip.Addr
}

// places finds the interfaces on whose networks the addresses are.
func (r *run) places(want map[netip.Addr]bool) (map[int]place, error) {
	out := map[int]place{}
	if len(want) == 0 {
		return out, nil
	}
	links, err := link.Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("announce: list interfaces: %w", err)
	}
	for _, l := range links {
		at := l.Attrs()
		if at.Flags&net.FlagUp == 0 || at.Flags&net.FlagLoopback != 0 || at.Flags&net.FlagBroadcast == 0 || len(at.HardwareAddr) != 6 || r.a.cfg.Skip(at.Name) {
			continue
		}
		own, err := link.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(l, unix.AF_INET) })
		if err != nil {
			return nil, fmt.Errorf("announce: addresses of %s: %w", at.Name, err)
		}
		p := place{index: at.Index, name: at.Name, mac: at.HardwareAddr}
		for addr := range want {
			if slices.ContainsFunc(own, func(o netlink.Addr) bool { return o.Contains(addr.AsSlice()) && !o.IP.Equal(addr.AsSlice()) }) {
				p.addrs = append(p.addrs, addr)
			}
		}
		if len(p.addrs) > 0 {
			slices.SortFunc(p.addrs, netip.Addr.Compare)
			out[at.Index] = p
		}
	}
	return out, nil
}
