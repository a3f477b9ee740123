package model

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Node is where the rules will be.
type Node struct {
	Name string
	Zone string // "" when not known
}

// Key names a port of a Service.
type Key struct{ Namespace, Name, Port string }

// String is "namespace/name" or "namespace/name:port".
func (k Key) String() string {
	if k.Port == "" {
		return k.Namespace + "/" + k.Name
	}
	return k.Namespace + "/" + k.Name + ":" + k.Port
}

// Port is one port of a Service, as this node serves it.
type Port struct {
	Key       Key
	Proto     string // tcp, udp, sctp
	ClusterIP netip.Addr
	Port      uint16
	NodePort  uint16       // 0: none
	External  []netip.Addr // externalIPs
	Balancer  []netip.Addr // addresses of the load balancer, where packets keep them as destination
	Sources   []netip.Prefix
	Affinity  time.Duration // client IP affinity; 0: none

	ExternalLocal bool // externalTrafficPolicy: Local

	// Internal takes connections to the cluster IP; Cluster those from outside under the Cluster policy (and from pods and
	// the node to outside addresses under Local); Local those from outside under Local.
	Internal, Cluster, Local []netip.AddrPort
	Anywhere                 bool // some endpoint exists somewhere: what has none here is dropped, not refused
}

// Ports lists the ports of a Service on this node. A headless or ExternalName Service has none; nor have ports of an address family
// that the node's rules are not for (IPv6).
func Ports(svc *corev1.Service, endpoints []*discoveryv1.EndpointSlice, node Node) []Port {
	ip, err := netip.ParseAddr(svc.Spec.ClusterIP)
	if svc.Spec.Type == corev1.ServiceTypeExternalName || err != nil {
		return nil
	}
	if !ip.Is4() {
		for _, s := range svc.Spec.ClusterIPs {
			if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
				ip = a
			}
		}
		if !ip.Is4() {
			return nil
		}
	}
	var out []Port
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		p := Port{Key: Key{svc.Namespace, svc.Name, sp.Name}, Proto: strings.ToLower(string(sp.Protocol)), ClusterIP: ip,
			Port: uint16(sp.Port), NodePort: uint16(sp.NodePort), External: addrs(svc.Spec.ExternalIPs)}
		if p.Proto == "" {
			p.Proto = "tcp"
		}
		outside(&p, svc)
		choose(&p, svc, collect(endpoints, sp.Name, p.Proto, node), node)
		out = append(out, p)
	}
	return out
}

// outside fills in what concerns connections from outside the cluster, and affinity.
func outside(p *Port, svc *corev1.Service) {
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		p.Affinity = 3 * time.Hour
		if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			p.Affinity = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	p.ExternalLocal = svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			p.Balancer = append(p.Balancer, addrs([]string{in.IP})...)
		}
	}
	for _, s := range svc.Spec.LoadBalancerSourceRanges {
		if r, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil && r.Addr().Is4() {
			p.Sources = append(p.Sources, r.Masked())
		}
	}
	if len(svc.Spec.LoadBalancerSourceRanges) > 0 && len(p.Sources) == 0 {
		p.Sources = []netip.Prefix{netip.MustParsePrefix("255.255.255.255/32")} // only ranges we cannot serve: nobody
	}
}

func addrs(list []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			out = append(out, a)
		}
	}
	return out
}

// endpoint is an address with what decides about it.
type endpoint struct {
	at                    netip.AddrPort
	ready, ending, local  bool // ending: terminating, and still serving
	hinted, near, sameNod bool // has hints; hints for our zone; hints for our node
}

// collect gathers a port's endpoints from all slices, each address once: a ready mention wins.
func collect(in []*discoveryv1.EndpointSlice, name, proto string, node Node) []endpoint {
	found := map[netip.AddrPort]endpoint{}
	for _, s := range in {
		if s.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, sp := range s.Ports {
			if sp.Port == nil || str(sp.Name) != name || strings.ToLower(string(protocol(sp.Protocol))) != proto {
				continue
			}
			for i := range s.Endpoints {
				e, ok := read(&s.Endpoints[i], uint16(*sp.Port), node)
				if old, twice := found[e.at]; ok && (!twice || (e.ready && !old.ready)) {
					found[e.at] = e
				}
			}
		}
	}
	out := make([]endpoint, 0, len(found))
	for _, e := range found {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b endpoint) int {
		return cmp.Or(a.at.Addr().Compare(b.at.Addr()), cmp.Compare(a.at.Port(), b.at.Port()))
	})
	return out
}

func read(e *discoveryv1.Endpoint, port uint16, node Node) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	a, err := netip.ParseAddr(e.Addresses[0])
	if err != nil || !a.Is4() || a.IsLoopback() || a.IsUnspecified() {
		return endpoint{}, false
	}
	out := endpoint{at: netip.AddrPortFrom(a, port), local: e.NodeName != nil && *e.NodeName == node.Name}
	out.ready = e.Conditions.Ready == nil || *e.Conditions.Ready
	serving := out.ready
	if e.Conditions.Serving != nil {
		serving = *e.Conditions.Serving
	}
	out.ending = serving && e.Conditions.Terminating != nil && *e.Conditions.Terminating
	if h := e.Hints; h != nil {
		out.hinted = len(h.ForZones) > 0
		for _, z := range h.ForZones {
			out.near = out.near || z.Name == node.Zone
		}
		for _, n := range h.ForNodes {
			out.sameNod = out.sameNod || n.Name == node.Name
		}
	}
	return out, true
}

// choose fills in who takes which connections.
func choose(p *Port, svc *corev1.Service, all []endpoint, node Node) {
	everyone := pick(all, func(endpoint) bool { return true })
	cluster := pick(near(all, node), func(endpoint) bool { return true })
	local := pick(all, func(e endpoint) bool { return e.local })
	p.Cluster, p.Internal, p.Local = cluster, cluster, local
	p.Anywhere = len(everyone) > 0
	if t := svc.Spec.InternalTrafficPolicy; t != nil && *t == corev1.ServiceInternalTrafficPolicyLocal {
		p.Internal = local
	}
}

// pick returns the ready ones among those wanted, or else those that are ending but serve.
func pick(all []endpoint, want func(endpoint) bool) []netip.AddrPort {
	var ready, ending []netip.AddrPort
	for _, e := range all {
		if !want(e) {
			continue
		}
		if e.ready {
			ready = append(ready, e.at)
		} else if e.ending {
			ending = append(ending, e.at)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return ending
}

// near narrows to the endpoints hinted for this node, else for its zone; hints count only when every ready endpoint has
// some, since a half-hinted set is one in transition.
func near(all []endpoint, node Node) []endpoint {
	var onNode, inZone []endpoint
	complete := true
	for _, e := range all {
		if !e.ready {
			continue
		}
		complete = complete && e.hinted
		if e.sameNod {
			onNode = append(onNode, e)
		}
		if e.near {
			inZone = append(inZone, e)
		}
	}
	switch {
	case len(onNode) > 0:
		return onNode
	case complete && node.Zone != "" && len(inZone) > 0:
		return inZone
	}
	return all
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func protocol(p *corev1.Protocol) corev1.Protocol {
	if p == nil {
		return corev1.ProtocolTCP
	}
	return *p
}
