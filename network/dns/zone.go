package dns

import (
	"net/netip"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Zone is what the cluster's Services and EndpointSlices say, by name and by address. Safe for concurrent use.
type Zone struct {
	mu       sync.RWMutex
	services map[name]service
	slices   map[name]slice                 // by their own names
	members  map[name]map[name]bool         // service -> its slices
	spaces   map[string]int                 // namespaces -> services in them
	byAddr   map[netip.Addr]map[name]string // address -> service or slice that has it -> relative name, for PTR
}

type name struct{ space, name string }

type port struct {
	name, proto string
	number      uint16
}

type service struct {
	addrs    []netip.Addr // cluster IPs; none when headless
	ports    []port
	external string // ExternalName
}

type slice struct {
	service   name
	ports     []port
	endpoints []endpoint
}

type endpoint struct {
	host string // hostname, or the address with dashes
	addr netip.Addr
}

// NewZone returns an empty zone.
func NewZone() *Zone {
	return &Zone{services: map[name]service{}, slices: map[name]slice{}, members: map[name]map[name]bool{}, spaces: map[string]int{},
		byAddr: map[netip.Addr]map[name]string{}}
}

// SetService adds or replaces a Service.
func (z *Zone) SetService(s *corev1.Service) {
	k := name{s.Namespace, s.Name}
	var v service
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		v.external = strings.ToLower(strings.TrimSuffix(s.Spec.ExternalName, "."))
	} else {
		ips := s.Spec.ClusterIPs
		if len(ips) == 0 {
			ips = []string{s.Spec.ClusterIP}
		}
		for _, ip := range ips {
			if a, err := netip.ParseAddr(ip); err == nil {
				v.addrs = append(v.addrs, a)
			}
		}
		for _, p := range s.Spec.Ports {
			v.ports = append(v.ports, port{p.Name, protocol(p.Protocol), uint16(p.Port)})
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.dropService(k)
	z.services[k] = v
	z.spaces[k.space]++
	for _, a := range v.addrs {
		z.point(a, k, k.name+"."+k.space+".svc")
	}
}

// DeleteService removes one.
func (z *Zone) DeleteService(namespace, n string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.dropService(name{namespace, n})
}

func (z *Zone) dropService(k name) {
	old, ok := z.services[k]
	if !ok {
		return
	}
	delete(z.services, k)
	if z.spaces[k.space]--; z.spaces[k.space] == 0 {
		delete(z.spaces, k.space)
	}
	for _, a := range old.addrs {
		z.unpoint(a, k)
	}
}

// SetSlice adds or replaces an EndpointSlice. Only ready endpoints have names.
func (z *Zone) SetSlice(s *discoveryv1.EndpointSlice) {
	k := name{s.Namespace, "slice/" + s.Name}
	v := slice{service: name{s.Namespace, s.Labels[discoveryv1.LabelServiceName]}}
	for _, p := range s.Ports {
		if p.Port == nil {
			continue
		}
		q := port{proto: "tcp", number: uint16(*p.Port)}
		if p.Name != nil {
			q.name = *p.Name
		}
		if p.Protocol != nil {
			q.proto = protocol(*p.Protocol)
		}
		v.ports = append(v.ports, q)
	}
	for _, e := range s.Endpoints {
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			continue
		}
		for _, ip := range e.Addresses {
			a, err := netip.ParseAddr(ip)
			if err != nil {
				continue
			}
			host := dashed(a)
			if e.Hostname != nil && *e.Hostname != "" {
				host = strings.ToLower(*e.Hostname)
			}
			v.endpoints = append(v.endpoints, endpoint{host, a})
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.dropSlice(k)
	if v.service.name == "" {
		return
	}
	z.slices[k] = v
	if z.members[v.service] == nil {
		z.members[v.service] = map[name]bool{}
	}
	z.members[v.service][k] = true
	for _, e := range v.endpoints {
		z.point(e.addr, k, e.host+"."+v.service.name+"."+k.space+".svc")
	}
}

// DeleteSlice removes one, by its own name.
func (z *Zone) DeleteSlice(namespace, n string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.dropSlice(name{namespace, "slice/" + n})
}

func (z *Zone) dropSlice(k name) {
	old, ok := z.slices[k]
	if !ok {
		return
	}
	delete(z.slices, k)
	if delete(z.members[old.service], k); len(z.members[old.service]) == 0 {
		delete(z.members, old.service)
	}
	for _, e := range old.endpoints {
		z.unpoint(e.addr, k)
	}
}

func (z *Zone) point(a netip.Addr, by name, to string) {
	if z.byAddr[a] == nil {
		z.byAddr[a] = map[name]string{}
	}
	z.byAddr[a][by] = to
}

func (z *Zone) unpoint(a netip.Addr, by name) {
	if delete(z.byAddr[a], by); len(z.byAddr[a]) == 0 {
		delete(z.byAddr, a)
	}
}

// found is what a name of the zone is. exists without anything in it is a name that only has others below it, or other types.
type found struct {
	exists bool
	addrs  []netip.Addr
	srv    []target
	cname  string // where an ExternalName leads
}

type target struct {
	port uint16
	name string // relative to the zone
	addr netip.Addr
}

// lookup finds a name given by its labels, lower case, without the zone: ["web" "default" "svc"].
func (z *Zone) lookup(labels []string) found {
	n := len(labels)
	if n == 0 {
		return found{exists: true}
	}
	switch labels[n-1] {
	case "svc":
		return z.lookupService(labels[:n-1])
	case "pod":
		return z.lookupPod(labels[:n-1])
	}
	return found{}
}

func (z *Zone) lookupService(l []string) found {
	z.mu.RLock()
	defer z.mu.RUnlock()
	n := len(l)
	if n == 0 {
		return found{exists: true}
	}
	if n == 1 {
		return found{exists: z.spaces[l[0]] > 0}
	}
	k := name{l[n-1], l[n-2]}
	s, ok := z.services[k]
	switch {
	case !ok:
		return found{}
	case s.external != "":
		if n > 2 {
			return found{}
		}
		return found{exists: true, cname: s.external}
	case n == 2:
		return z.wholeService(k, s)
	case n == 3 && !strings.HasPrefix(l[0], "_"):
		return z.endpoints(k, s, l[0])
	case n == 3: // _tcp.web.default.svc
		f := z.ports(k, s, "", strings.TrimPrefix(l[0], "_"))
		return found{exists: f.exists}
	case n == 4 && strings.HasPrefix(l[0], "_") && strings.HasPrefix(l[1], "_"):
		return z.ports(k, s, strings.TrimPrefix(l[0], "_"), strings.TrimPrefix(l[1], "_"))
	}
	return found{}
}

func (z *Zone) wholeService(k name, s service) found {
	f := found{exists: true, addrs: s.addrs, srv: z.ports(k, s, "", "").srv}
	if len(s.addrs) > 0 {
		return f
	}
	z.each(k, func(sl slice) {
		for _, e := range sl.endpoints {
			f.addrs = append(f.addrs, e.addr)
		}
	})
	// A headless Service without a ready endpoint has no name, so that a search goes on (as CoreDNS does).
	f.exists = len(f.addrs) > 0
	return f
}

func (z *Zone) endpoints(k name, s service, host string) found {
	if len(s.addrs) > 0 {
		return found{} // only headless Services have names for their endpoints
	}
	var f found
	z.each(k, func(sl slice) {
		for _, e := range sl.endpoints {
			if e.host != host {
				continue
			}
			f.exists, f.addrs = true, append(f.addrs, e.addr)
			for _, p := range sl.ports {
				f.srv = append(f.srv, target{p.number, e.host + "." + k.name + "." + k.space + ".svc", e.addr})
			}
		}
	})
	return f
}

// ports lists the SRV targets of a Service; an empty name or proto stands for all.
func (z *Zone) ports(k name, s service, portName, proto string) found {
	fits := func(p port) bool { return (portName == "" || p.name == portName) && (proto == "" || p.proto == proto) }
	base := k.name + "." + k.space + ".svc"
	var f found
	if len(s.addrs) > 0 {
		for _, p := range s.ports {
			if fits(p) {
				for _, a := range s.addrs {
					f.srv = append(f.srv, target{p.number, base, a})
				}
			}
		}
	} else {
		z.each(k, func(sl slice) {
			for _, p := range sl.ports {
				for _, e := range sl.endpoints {
					if fits(p) {
						f.srv = append(f.srv, target{p.number, e.host + "." + base, e.addr})
					}
				}
			}
		})
	}
	f.exists = len(f.srv) > 0
	return f
}

func (z *Zone) each(k name, do func(slice)) {
	for m := range z.members[k] {
		do(z.slices[m])
	}
}

// lookupPod answers 10-244-0-5.<namespace>.pod: the name says its address, whether or not there is such a pod.
func (z *Zone) lookupPod(l []string) found {
	switch len(l) {
	case 0:
		return found{exists: true}
	case 1:
		return found{exists: true}
	case 2:
		for _, sep := range []string{".", ":"} {
			if a, err := netip.ParseAddr(strings.ReplaceAll(l[0], "-", sep)); err == nil && dashed(a) == l[0] {
				return found{exists: true, addrs: []netip.Addr{a}}
			}
		}
	}
	return found{}
}

// names lists the names that an address has, relative to the zone.
func (z *Zone) names(a netip.Addr) []string {
	z.mu.RLock()
	defer z.mu.RUnlock()
	var out []string
	for _, n := range z.byAddr[a] {
		out = append(out, n)
	}
	return out
}

func protocol(p corev1.Protocol) string {
	if p == "" {
		return "tcp"
	}
	return strings.ToLower(string(p))
}

func dashed(a netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
}
