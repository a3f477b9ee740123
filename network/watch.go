package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"keelson.dev/keelson/network/link"
	"keelson.dev/keelson/network/netns"
)

const (
	// settle is how long we wait after something was removed: who removes one thing usually removes more.
	settle = 200 * time.Millisecond
	// slowest is the longest pause between two tries to put back what cannot be put back; short enough that what can be again is
	// back within ten seconds.
	slowest = 5 * time.Second
)

// Watch puts back what somebody else removes from the node (the bridge, its addresses, routes, the node's ends of pods, forwarding),
// beginning with what was removed before it, until ctx ends. The kernel tells of it; nothing is polled.
func (n *Network) Watch(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	stop, done, err := link.Watch(func(r link.Removal) {
		if n.ours(r) {
			wake(changed)
		}
	})
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	defer func() {
		stop()
		<-done
	}()
	wake(changed)
	for pause := settle; ; {
		select {
		case <-ctx.Done():
			return nil
		case err := <-done:
			return err
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		err := n.repair(ctx)
		if err == nil || ctx.Err() != nil {
			pause = settle
			continue
		}
		n.cfg.Log.Error("the node's network was changed by others and cannot be repaired; trying again", "error", err)
		wake(changed)
		pause = min(2*pause, slowest)
	}
}

// ours tells whether what was removed may be something that is to be there. What we remove ourselves is known to no one any more.
func (n *Network) ours(r link.Removal) bool {
	if r.Link == n.cfg.Bridge || r == (link.Removal{}) || r.Target == n.cfg.PodCIDR.Masked() {
		return true
	}
	if r.Target.IsValid() && r.Target.IsSingleIP() && slices.Contains(n.own(), r.Target.Addr()) {
		return true
	}
	for name, l := range n.ends() {
		if name == r.Link || r.Target.IsValid() && r.Target.IsSingleIP() && r.Target.Addr() == l.Addr {
			return true
		}
	}
	return false
}

// own are the bridge's addresses.
func (n *Network) own() []netip.Addr {
	if n.cfg.DNS.IsValid() {
		return []netip.Addr{n.addresses.Gateway(), n.cfg.DNS}
	}
	return []netip.Addr{n.addresses.Gateway()}
}

// ends are the attachments that stand, by the name of the node's end.
func (n *Network) ends() map[string]lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[string]lease, len(n.pods)+len(n.spares))
	for _, e := range n.pods {
		out[n.links.Name(e.lease.Slot)] = e.lease
	}
	for _, l := range n.spares {
		out[n.links.Name(l.Slot)] = l
	}
	return out
}

// repair looks at what is there and makes what is missing.
func (n *Network) repair(ctx context.Context) error {
	ends := n.ends()
	addrs := make(map[string]netip.Addr, len(ends))
	for name, l := range ends {
		addrs[name] = l.Addr
	}
	lost, err := n.links.Lost(n.own(), n.cfg.PodCIDR, addrs)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	var errs []error
	if len(lost.Node) > 0 {
		if err := n.ensureNode(); err != nil {
			return err
		}
	}
	back := lost.Node
	for _, name := range slices.Concat(lost.Gone, lost.Loose) {
		l := ends[name]
		made, err := n.reconnect(ctx, l, slices.Contains(lost.Gone, name))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("network of pod %s (%s): %w", l.Record.Pod, l.Addr, err))
		case made && l.Record.Pod != "":
			back = append(back, fmt.Sprintf("the link, route or settings of pod %s (%s)", l.Record.Pod, l.Addr))
		}
	}
	if len(back) > 0 {
		n.cfg.Log.Warn("somebody removed parts of the node's network; they are back", "parts", back)
		n.cfg.Repaired(summary(back))
	}
	return errors.Join(errs...)
}

// ensureNode makes what every node has, whatever its pods.
func (n *Network) ensureNode() error {
	if err := n.links.EnsureNode(n.addresses.Gateway(), n.cfg.PodCIDR, n.cfg.MTU); err != nil {
		return err
	}
	if n.cfg.DNS.IsValid() {
		return n.links.AddAddress(n.cfg.DNS)
	}
	return nil
}

// reconnect gives an attachment its link (if gone) and route again. An attachment that left meanwhile is left alone. A spare
// without its link is given up.
func (n *Network) reconnect(ctx context.Context, l lease, gone bool) (made bool, err error) {
	if l.Record.Sandbox == "" && gone {
		return false, n.giveUp(l)
	}
	if l.Record.Sandbox != "" {
		done, err := n.turns.take(ctx, l.Record.Sandbox)
		if err != nil {
			return false, err
		}
		defer done()
	}
	name := n.links.Name(l.Slot)
	if _, still := n.ends()[name]; !still {
		return false, nil
	}
	if gone {
		if err := netns.Do(n.pin(l.Addr.String()), n.wireOf(l).Make); err != nil {
			return false, err
		}
	}
	if err := n.links.Connect(name, l.Addr, n.addresses.Gateway()); err != nil {
		if _, still := n.ends()[name]; !still { // a spare that became a pod's and went
			return false, nil
		}
		return false, err
	}
	return true, nil
}

// giveUp drops a spare, unless a pod has got it: then the next look finds it as that pod's.
func (n *Network) giveUp(l lease) error {
	n.mu.Lock()
	at := slices.IndexFunc(n.spares, func(s lease) bool { return s.Slot == l.Slot })
	if at >= 0 {
		n.spares = slices.Delete(n.spares, at, at+1)
	}
	n.mu.Unlock()
	if at < 0 {
		return fmt.Errorf("a spare network was taken while it was without its link")
	}
	n.drop(l)
	wake(n.wake.refill)
	return nil
}

// summary names the parts, the first ones of many.
func summary(parts []string) string {
	const most = 5
	more := ""
	if len(parts) > most {
		more = fmt.Sprintf(" and %d more", len(parts)-most)
		parts = parts[:most]
	}
	return strings.Join(parts, ", ") + more
}
