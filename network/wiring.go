package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/network/hostport"
	"keelson.dev/keelson/network/link"
	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/network/netns"
)

// podDefaults are what container images expect of a pod's namespace, as other runtimes set it: any port may be bound and ping
// works without privileges.
var podDefaults = map[string]string{
	"net.ipv4.ip_unprivileged_port_start": "0",
	"net.ipv4.ping_group_range":           "0 2147483647",
}

// obtain returns a wired namespace that belongs to nobody: a spare, or a new one, or the given one.
func (n *Network) obtain(ctx context.Context, given string) (lease, error) {
	if given != "" {
		return n.build(ctx, given)
	}
	n.mu.Lock()
	var l lease
	got := len(n.spares) > 0
	if got {
		l, n.spares = n.spares[0], n.spares[1:]
	}
	n.mu.Unlock()
	if got {
		wake(n.wake.refill)
		return l, nil
	}
	return n.build(ctx, "")
}

// build reserves an address and wires a new namespace, or the given one, for it. After an error all of it is on its way out.
func (n *Network) build(ctx context.Context, given string) (lease, error) {
	l, err := n.addresses.Reserve(record{State: making, Given: given != ""})
	if err != nil {
		return lease{}, err
	}
	if err := n.wire(ctx, l, given); err != nil {
		n.drop(l)
		return lease{}, fmt.Errorf("network: %s: %w", l.Addr, err)
	}
	return l, nil
}

func (n *Network) wire(ctx context.Context, l lease, given string) error {
	name, w := n.links.Name(l.Slot), n.wireOf(l)
	pin := n.pin(l.Addr.String())
	pinned := netns.Create
	if given != "" {
		pinned = func(path string, inside func() error) error { return netns.Adopt(path, given, inside) }
	}
	err := pinned(pin, func() error {
		err := w.Make()
		if errors.Is(err, unix.EEXIST) {
			// The slot's last namespace is still being dropped, or a process keeps it: its link must not outlive its lease.
			if err = n.links.Delete(name); err == nil {
				err = w.Make()
			}
		}
		if err != nil {
			return err
		}
		return sysctls(podDefaults)
	})
	if err != nil {
		return err
	}
	atWired.Reach()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := n.links.Connect(name, l.Addr, w.Gateway); err != nil {
		return err
	}
	atConnected.Reach()
	return nil
}

func (n *Network) wireOf(l lease) link.Wire {
	return link.Wire{Host: n.host, HostName: n.links.Name(l.Slot), Pod: l.Addr, Gateway: n.addresses.Gateway(), MTU: n.cfg.MTU}
}

// sysctls writes parameters of the calling thread's namespace.
func sysctls(m map[string]string) error {
	for k, v := range m {
		if !strings.HasPrefix(k, "net.") || strings.ContainsAny(k, "/\x00") || strings.Contains(k, "..") {
			return fmt.Errorf("network: sysctl %q is not one of the pod's network (net.*)", k)
		}
		if err := link.Sysctl(strings.ReplaceAll(k, ".", "/"), v); err != nil {
			return err
		}
	}
	return nil
}

// addPorts makes e the sandbox's entry and applies its host ports. After an error it is not, or it is going.
func (n *Network) addPorts(ctx context.Context, sandbox string, e *entry) error {
	n.mu.Lock()
	var all []hostport.Mapping
	for _, p := range n.pods {
		all = append(all, p.ports...)
	}
	for _, m := range e.ports {
		if who := hostport.Conflict(all, m); who != "" {
			n.mu.Unlock()
			return errors.New(who)
		}
	}
	n.pods[sandbox] = e
	n.mu.Unlock()
	if len(e.ports) == 0 {
		return nil
	}
	if err := n.applyPorts(ctx); err != nil {
		return errors.Join(err, n.takePortsBack(ctx, sandbox))
	}
	return n.forgetUDP(e.ports)
}

// backLimit bounds the way back of a setup: a filter that hangs must not hold its caller.
var backLimit = 10 * time.Second

// takePortsBack is removePorts for a setup that failed: ctx may be what ended, and the way back must not depend on it.
func (n *Network) takePortsBack(ctx context.Context, sandbox string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backLimit)
	defer cancel()
	return n.removePorts(ctx, sandbox)
}

// removePorts takes the entry out and its host ports with it. After an error of the filter the entry is still there, and going.
func (n *Network) removePorts(ctx context.Context, sandbox string) error {
	n.mu.Lock()
	e := n.pods[sandbox]
	delete(n.pods, sandbox)
	n.mu.Unlock()
	if e == nil || len(e.ports) == 0 {
		return nil
	}
	if err := n.applyPorts(ctx); err != nil {
		n.mu.Lock()
		e.going = true
		n.pods[sandbox] = e
		n.mu.Unlock()
		return err
	}
	return nil
}

// applyPorts brings the filter to the host ports of all entries. The turn keeps an older reading from being applied last.
func (n *Network) applyPorts(ctx context.Context) error {
	select {
	case n.portsTurn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-n.portsTurn }()
	n.mu.Lock()
	var all []hostport.Mapping
	for _, p := range n.pods {
		all = append(all, p.ports...)
	}
	n.mu.Unlock()
	return n.cfg.Filter.Apply(ctx, netfilter.HostPort, hostport.Rules(all))
}

// forgetUDP ends what conntrack remembers about UDP senders that spoke to a port before it was mapped: they would go on
// reaching nobody.
func (n *Network) forgetUDP(ports []hostport.Mapping) error {
	var udp []uint16
	for _, m := range ports {
		if m.Proto == "udp" {
			udp = append(udp, m.Port)
		}
	}
	if len(udp) == 0 {
		return nil
	}
	return n.links.FlushUDP(udp)
}

// drop hands what a lease has to the background.
func (n *Network) drop(l lease) {
	n.mu.Lock()
	n.going = append(n.going, l)
	n.mu.Unlock()
	wake(n.wake.drop)
}

// dropLoop unpins namespaces in batches, forgets their connections and only then frees their addresses. It ends with ctx, after
// the batch it is at; what is left is found as "leaving" or "making" by the next process.
func (n *Network) dropLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake.drop:
		}
		n.mu.Lock()
		batch := n.going
		n.going = nil
		n.mu.Unlock()
		if stuck := n.dropBatch(batch); len(stuck) > 0 {
			n.mu.Lock()
			n.going = append(n.going, stuck...) // tried again with the next batch
			n.mu.Unlock()
		}
	}
}

func (n *Network) dropBatch(batch []lease) (stuck []lease) {
	var gone []lease
	var addrs []netip.Addr
	for _, l := range batch {
		err := netns.Remove(n.pin(l.Addr.String()))
		if err == nil && l.Record.Given {
			err = n.links.Delete(n.links.Name(l.Slot))
		}
		if err != nil {
			n.cfg.Log.Warn("a pod's network namespace cannot be dropped", "address", l.Addr, "error", err)
			stuck = append(stuck, l)
			continue
		}
		atUnpinned.Reach()
		gone, addrs = append(gone, l), append(addrs, l.Addr)
	}
	if len(gone) == 0 {
		return stuck
	}
	if err := n.links.FlushConntrack(addrs); err != nil {
		n.cfg.Log.Warn("connections of released pod addresses are not forgotten", "error", err)
	}
	atForgotten.Reach()
	for _, l := range gone {
		n.cfg.Guard.Forget(l.Addr)
		if err := n.addresses.Release(l.Addr); err != nil {
			n.cfg.Log.Warn("a pod address cannot be released", "address", l.Addr, "error", err)
			stuck = append(stuck, l)
		}
	}
	return stuck
}

// refillLoop keeps the spares at their number. It ends with ctx.
func (n *Network) refillLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake.refill:
		}
		for n.lacking() && ctx.Err() == nil {
			l, err := n.build(ctx, "")
			if err == nil {
				atSpare.Reach()
				l.Record.State = ready
				if err = n.addresses.Write(l); err != nil {
					n.drop(l)
				}
			}
			if err != nil {
				n.cfg.Log.Debug("no spare pod network", "error", err)
				break
			}
			n.mu.Lock()
			n.spares = append(n.spares, l)
			n.mu.Unlock()
		}
	}
}

func (n *Network) lacking() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.spares) < n.cfg.Spares
}
