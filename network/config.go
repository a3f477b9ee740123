package network

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"keelson.dev/keelson/network/netfilter"
)

// Config is the node's place in the network.
type Config struct {
	Bridge      string       // our device, and the beginning of each pod link's name; default keelson0, at most 9 bytes
	PodCIDR     netip.Prefix // this node's pod addresses; required
	ClusterCIDR netip.Prefix // all pod addresses of the cluster: not masqueraded; default PodCIDR
	StateDir    string       // survives a reboot: the place in the address rotation; required
	RunDir      string       // tmpfs: records and namespace pins; required
	MTU         int          // of pod links; 0 takes that of the default route's device
	DNS         netip.Addr   // optional: the cluster DNS address, put on the bridge for package dns to listen on
	Guard       Guard        // optional: network policy
	Spares      int          // attachments made in advance; 0 means none
	Reserved    []uint16     // TCP ports of the node's own API server and kubelet, which Reserve keeps reachable
	Log         *slog.Logger // optional
	// Repaired is told in words what others had removed and Watch put back; optional.
	Repaired func(parts string)
	Filter   Filter // optional; default iptables with the chain prefix KEELSON
}

// Filter is the packet filter as the network needs it; netfilter's IPTables and Fake are ones.
type Filter interface {
	Apply(ctx context.Context, owner netfilter.Owner, s netfilter.Set) error
	Clear(ctx context.Context) error
}

// Guard is asked before a pod gets to use its address; package policy's Engine is one.
type Guard interface {
	// Admit returns when what the pod may do is in force. After an error the pod does not start.
	Admit(ctx context.Context, namespace, name, uid string, a netip.Addr) error
	// Restore tells of a pod that kept its address over a restart; it does not wait.
	Restore(namespace, name, uid string, a netip.Addr)
	// Forget is called before another pod may have the address. Idempotent.
	Forget(a netip.Addr)
}

// open is the Guard that lets everybody be.
type open struct{}

func (open) Admit(context.Context, string, string, string, netip.Addr) error { return nil }
func (open) Restore(string, string, string, netip.Addr)                      {}
func (open) Forget(netip.Addr)                                               {}

func (c Config) complete() (Config, error) {
	if c.Bridge == "" {
		c.Bridge = "keelson0"
	}
	if !c.PodCIDR.IsValid() || !c.PodCIDR.Addr().Is4() {
		return c, fmt.Errorf("network: pod range %q: want an IPv4 prefix", c.PodCIDR)
	}
	if !c.ClusterCIDR.IsValid() {
		c.ClusterCIDR = c.PodCIDR
	}
	if !c.ClusterCIDR.Overlaps(c.PodCIDR) || c.ClusterCIDR.Bits() > c.PodCIDR.Bits() {
		return c, fmt.Errorf("network: the cluster's pod range %s does not contain the node's, %s", c.ClusterCIDR, c.PodCIDR)
	}
	if !filepath.IsAbs(c.StateDir) || !filepath.IsAbs(c.RunDir) {
		return c, fmt.Errorf("network: state folder %q and run folder %q must be absolute paths", c.StateDir, c.RunDir)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Repaired == nil {
		c.Repaired = func(string) {}
	}
	if c.Guard == nil {
		c.Guard = open{}
	}
	if c.Filter == nil {
		c.Filter = netfilter.NewIPTables(netfilter.Config{Log: c.Log})
	}
	return c, nil
}

// Pod is what Setup is asked for.
type Pod struct {
	SandboxID            string // required; the key of everything
	Namespace, Name, UID string // for people
	PortMappings         []PortMapping
	Sysctls              map[string]string // net.* only, by their dotted names
	// NetNS is the pinned namespace to wire, of a pod whose user namespace must own it; "" makes one.
	NetNS string
}

// PortMapping is a host port.
type PortMapping struct {
	Protocol      string // TCP, UDP, SCTP in any case; "" is TCP
	HostIP        string // "" is every address of the node
	HostPort      int32  // 0: not mapped
	ContainerPort int32
}

// Attachment is a pod's place in the network.
type Attachment struct {
	NetNSPath string // pinned; valid until Teardown
	IPs       []netip.Addr
	Gateway   netip.Addr
}

// record is what is kept per address. A spare has no sandbox.
type record struct {
	State   string        `json:"state"`
	Sandbox string        `json:"sandbox,omitempty"`
	Pod     string        `json:"pod,omitempty"` // namespace/name
	UID     string        `json:"uid,omitempty"`
	Ports   []PortMapping `json:"ports,omitempty"`
	// Given namespaces outlive their lease: their link does not go with them.
	Given bool `json:"given,omitempty"`
}

// The states of a record. A spare is ready with no sandbox: making -> ready (spare) -> ready (pod) -> leaving -> no record.
const (
	making  = "making"
	ready   = "ready"
	leaving = "leaving"
)
