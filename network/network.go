package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/network/hostport"
	"keelson.dev/keelson/network/ipam"
	"keelson.dev/keelson/network/link"
	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/network/netns"
)

// Network wires pods to the node. Safe for concurrent use; Close it.
type Network struct {
	cfg       Config
	links     *link.Links
	addresses *ipam.Pool[record]
	host      *os.File // the node's network namespace
	lock      *os.File // held while this process owns RunDir
	stop      context.CancelFunc
	running   sync.WaitGroup
	wake      wakes
	turns     turns
	portsTurn chan struct{} // one token, held from reading the ports to having applied them

	mu     sync.Mutex
	pods   map[string]*entry // by sandbox
	spares []lease
	going  []lease // to be dropped
}

type lease = ipam.Lease[record]

// entry is an attached pod.
type entry struct {
	lease lease
	ports []hostport.Mapping
	going bool // its ports could not be taken back yet: Teardown is to be called again
}

type wakes struct{ drop, refill chan struct{} }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is going to look anyway
	}
}

// New prepares the node (bridge, forwarding, rules), takes over what an earlier process left and starts the background work.
// It fails when another process uses the same RunDir.
func New(cfg Config) (*Network, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, pods: map[string]*entry{}, portsTurn: make(chan struct{}, 1),
		wake: wakes{make(chan struct{}, 1), make(chan struct{}, 1)}, turns: turns{m: map[string]*turn{}}}
	if err := n.open(); err != nil {
		n.closeFiles()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.running.Go(func() { n.dropLoop(ctx) })
	if cfg.Spares > 0 {
		n.running.Go(func() { n.refillLoop(ctx) })
		wake(n.wake.refill)
	}
	wake(n.wake.drop)
	return n, nil
}

func (n *Network) open() error {
	for _, dir := range []string{n.cfg.StateDir, n.cfg.RunDir, n.pin("")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("network: %w", err)
		}
	}
	var err error
	if n.lock, err = os.OpenFile(filepath.Join(n.cfg.RunDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := unix.Flock(int(n.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("network: %s is in use by another process: %w", n.cfg.RunDir, err)
	}
	if n.host, err = netns.Host(); err != nil {
		return err
	}
	if n.links, err = link.Open(n.cfg.Bridge); err != nil {
		return err
	}
	if n.cfg.MTU == 0 {
		n.cfg.MTU = n.links.MTU()
	}
	var old []lease
	n.addresses, old, err = ipam.Open[record](ipam.Config{Range: n.cfg.PodCIDR, Dir: filepath.Join(n.cfg.RunDir, "ipam"),
		CursorFile: filepath.Join(n.cfg.StateDir, "last-address")})
	if err != nil {
		return err
	}
	if err := n.ensureNode(); err != nil {
		return err
	}
	if err := n.recover(old); err != nil {
		return err
	}
	ctx := context.Background()
	if err := n.cfg.Filter.Apply(ctx, netfilter.Node, nodeRules(n.cfg, n.links.Pattern())); err != nil {
		return err
	}
	return n.applyPorts(ctx)
}

// recover sorts the records of an earlier process: ready ones live on, all others are to be dropped; then pins and links that
// have no record go.
func (n *Network) recover(old []lease) error {
	known := map[string]bool{}
	for _, l := range old {
		known[l.Addr.String()], known[n.links.Name(l.Slot)] = true, true
		switch {
		case l.Broken || l.Record.State != ready || !netns.Pinned(n.pin(l.Addr.String())):
			n.going = append(n.going, l)
		case l.Record.Sandbox == "":
			n.spares = append(n.spares, l)
		default:
			ports, err := mappings(l.Record.Pod, l.Addr, l.Record.Ports)
			if err != nil {
				return err
			}
			n.pods[l.Record.Sandbox] = &entry{lease: l, ports: ports}
			ns, name, _ := strings.Cut(l.Record.Pod, "/")
			n.cfg.Guard.Restore(ns, name, l.Record.UID, l.Addr)
		}
	}
	pins, err := os.ReadDir(n.pin(""))
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	for _, p := range pins {
		if !known[p.Name()] {
			if err := netns.Remove(n.pin(p.Name())); err != nil {
				return err
			}
		}
	}
	links, err := n.links.List()
	if err != nil {
		return err
	}
	for _, name := range links {
		if !known[name] {
			n.cfg.Log.Warn("removing a pod link that no record knows", "link", name)
			if err := n.links.Delete(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// pin is the path of a namespace: named by its address, so that no index is needed to find it.
func (n *Network) pin(name string) string { return filepath.Join(n.cfg.RunDir, "netns", name) }

// Setup gives the sandbox a namespace, an address and its host ports. Asking again for the same sandbox returns what it has.
// Errors: ipam.ErrExhausted among others; after one, and when ctx ends, nothing of it is left, unless the packet filter failed
// at the way back too: then its address and ports are Teardown's.
func (n *Network) Setup(ctx context.Context, pod Pod) (Attachment, error) {
	if pod.SandboxID == "" {
		return Attachment{}, errors.New("network: setup without a sandbox ID")
	}
	done, err := n.turns.take(ctx, pod.SandboxID)
	if err != nil {
		return Attachment{}, err
	}
	defer done()
	if e := n.entry(pod.SandboxID); e != nil {
		if e.going {
			return Attachment{}, fmt.Errorf("network: sandbox %s is not off the network yet; tear it down first", pod.SandboxID)
		}
		return n.attachment(e.lease), nil
	}
	l, err := n.obtain(ctx, pod.NetNS)
	if err != nil {
		return Attachment{}, err
	}
	l.Record = record{State: making, Sandbox: pod.SandboxID, Pod: pod.Namespace + "/" + pod.Name, UID: pod.UID, Ports: pod.PortMappings, Given: pod.NetNS != ""}
	if err := n.dress(ctx, l, pod); err != nil {
		if n.entry(pod.SandboxID) == nil { // else a rule may still lead to the address: nobody else may have it
			n.drop(l)
		}
		return Attachment{}, fmt.Errorf("network: pod %s: %w", l.Record.Pod, err)
	}
	return n.attachment(l), nil
}

// dress makes a wired namespace the pod's: parameters, policy, host ports, record. On an error it has taken the ports back, or
// the sandbox's entry is there and going.
func (n *Network) dress(ctx context.Context, l lease, pod Pod) error {
	ports, err := mappings(l.Record.Pod, l.Addr, pod.PortMappings)
	if err != nil {
		return err
	}
	if len(pod.Sysctls) > 0 {
		if err := n.addresses.Write(l); err != nil { // from here on it is no spare any more
			return err
		}
		if err := netns.Do(n.pin(l.Addr.String()), func() error { return sysctls(pod.Sysctls) }); err != nil {
			return err
		}
	}
	atWritten.Reach()
	if err := n.cfg.Guard.Admit(ctx, pod.Namespace, pod.Name, pod.UID, l.Addr); err != nil {
		return err
	}
	atAdmitted.Reach()
	if err := n.addPorts(ctx, pod.SandboxID, &entry{lease: l, ports: ports}); err != nil {
		return err
	}
	atPorted.Reach()
	l.Record.State = ready
	err = ctx.Err()
	if err == nil {
		err = n.addresses.Write(l)
	}
	if err != nil {
		return errors.Join(err, n.takePortsBack(ctx, pod.SandboxID))
	}
	atReady.Reach()
	return nil
}

// Teardown takes the sandbox off the network. Idempotent, and safe without Setup. When it returns nil the host ports
// are free; the address comes back later.
func (n *Network) Teardown(ctx context.Context, sandboxID string) error {
	done, err := n.turns.take(ctx, sandboxID)
	if err != nil {
		return err
	}
	defer done()
	e := n.entry(sandboxID)
	if e == nil {
		return nil
	}
	e.lease.Record.State = leaving
	if err := n.addresses.Write(e.lease); err != nil {
		return err
	}
	atLeaving.Reach()
	if err := n.removePorts(ctx, sandboxID); err != nil {
		return err
	}
	atUnported.Reach()
	n.drop(e.lease)
	return nil
}

// Sandboxes lists the sandboxes that have an attachment.
func (n *Network) Sandboxes() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for id := range n.pods {
		out = append(out, id)
	}
	return out
}

// Status is nil when the node can carry pods.
func (n *Network) Status() error {
	if err := n.links.Node(); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err == nil && len(b) > 0 && b[0] != '1' {
		err = errors.New("network: net.ipv4.ip_forward is 0: somebody turned forwarding off; set it to 1")
	}
	return err
}

// Close ends the background work and waits for it. Pods keep their network.
func (n *Network) Close() error {
	n.stop()
	n.running.Wait()
	n.closeFiles()
	return nil
}

func (n *Network) closeFiles() {
	if n.links != nil {
		n.links.Close()
	}
	for _, f := range []*os.File{n.host, n.lock} {
		if f != nil {
			f.Close()
		}
	}
}

// Uninstall removes everything of ours from the node: every pod's namespace and link, the bridge, the rules of every owner of
// the filter, the records. The Network is closed by it.
func (n *Network) Uninstall(ctx context.Context) error {
	n.stop()
	n.running.Wait()
	defer n.closeFiles()
	errs := []error{n.cfg.Filter.Clear(ctx)}
	pins, err := os.ReadDir(n.pin(""))
	errs = append(errs, err)
	for _, p := range pins {
		errs = append(errs, netns.Remove(n.pin(p.Name())))
	}
	links, err := n.links.List()
	errs = append(errs, err)
	for _, name := range links { // a namespace may be held by a process that is still ending; its link goes now
		errs = append(errs, n.links.Delete(name))
	}
	errs = append(errs, n.links.RemoveNode(n.cfg.PodCIDR))
	for _, path := range []string{n.pin(""), filepath.Join(n.cfg.RunDir, "ipam"), filepath.Join(n.cfg.RunDir, "lock"),
		filepath.Join(n.cfg.StateDir, "last-address")} {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

func (n *Network) entry(id string) *entry {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pods[id]
}

func (n *Network) attachment(l lease) Attachment {
	return Attachment{NetNSPath: n.pin(l.Addr.String()), IPs: []netip.Addr{l.Addr}, Gateway: n.addresses.Gateway()}
}
