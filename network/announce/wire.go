package announce

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

// defendEvery bounds how often one address is defended against another machine (RFC 5227, 2.4).
const defendEvery = 10 * time.Second

// wire is one interface's ARP socket.
type wire struct {
	name   string
	mac    net.HardwareAddr
	client *arp.Client
	a      *Announcer
	dead   atomic.Bool // its reader has ended

	mu       sync.Mutex
	addrs    []netip.Addr
	defended map[netip.Addr]time.Time
}

func open(p place, a *Announcer) (*wire, error) {
	client, err := arp.Dial(&net.Interface{Index: p.index, Name: p.name, HardwareAddr: p.mac})
	if err != nil {
		return nil, fmt.Errorf("announce: listen for ARP on %s: %w", p.name, err)
	}
	return &wire{name: p.name, mac: p.mac, client: client, a: a, addrs: p.addrs, defended: map[netip.Addr]time.Time{}}, nil
}

func (w *wire) close() { w.client.Close() }

// speak replaces the addresses that are answered.
func (w *wire) speak(addrs []netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addrs = addrs
}

func (w *wire) ours(a netip.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.addrs, a)
}

// announce tells the network where an address is: a request for itself, which every neighbour that knows the address heeds.
func (w *wire) announce(a netip.Addr) error {
	p, err := arp.NewPacket(arp.OperationRequest, w.mac, a, make(net.HardwareAddr, 6), a)
	if err == nil {
		err = w.client.WriteTo(p, ethernet.Broadcast)
	}
	if err != nil {
		return fmt.Errorf("announce: %s on %s: %w", a, w.name, err)
	}
	w.a.cfg.Log.Debug("announced", "address", a, "interface", w.name)
	return nil
}

// answer answers until the socket is closed or fails.
func (w *wire) answer() {
	defer w.a.look()
	defer w.dead.Store(true)
	for {
		p, _, err := w.client.Read()
		var broken net.Error
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.As(err, &broken): // the interface went: whoever looks next opens it anew if it is back
			return
		case err != nil: // a frame that is no ARP packet
			continue
		}
		w.heed(p)
	}
}

func (w *wire) heed(p *arp.Packet) {
	if bytes.Equal(p.SenderHardwareAddr, w.mac) {
		return
	}
	if w.ours(p.SenderIP) {
		w.defend(p.SenderIP, p.SenderHardwareAddr)
		return
	}
	if p.Operation != arp.OperationRequest || !w.ours(p.TargetIP) {
		return
	}
	if err := w.client.Reply(p, w.mac, p.TargetIP); err != nil {
		w.a.cfg.Log.Warn("no answer to an ARP request", "address", p.TargetIP, "interface", w.name, "error", err)
	}
}

func (w *wire) defend(a netip.Addr, other net.HardwareAddr) {
	w.mu.Lock()
	due := time.Since(w.defended[a]) > defendEvery
	if due {
		w.defended[a] = time.Now()
	}
	w.mu.Unlock()
	if !due {
		return
	}
	w.a.cfg.Log.Error("another machine claims a load balancer address", "address", a, "interface", w.name, "other", other)
	if err := w.announce(a); err != nil {
		w.a.cfg.Log.Warn("defend a load balancer address", "error", err)
	}
	if w.a.cfg.Conflict != nil {
		w.a.cfg.Conflict(a, other)
	}
}
