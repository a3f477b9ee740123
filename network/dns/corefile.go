package dns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Settings are what users change of a cluster's DNS in the ConfigMaps that CoreDNS reads: servers for some domains, and names with
// addresses. The zero value changes nothing.
type Settings struct {
	forward map[string][]string     // lower-case zone with its dot -> servers, host:port; "." for all other names
	hosts   map[string][]netip.Addr // lower-case name with its dot -> addresses
}

// The bounds of what is read: a ConfigMap has a megabyte at most, and a person wrote this.
const (
	maxZones = 1000
	maxHosts = 10000
)

// ReadSettings reads the subset of Corefiles that users write for a cluster: server blocks of zones with "forward" and "hosts" in them. What else
// stands there (errors, cache, kubernetes, log, ...) is either done anyway or named in ignored. files come from the ConfigMaps
// kube-system/coredns (key Corefile) and coredns-custom: *.server are server blocks, *.override is the inside of the main one.
func ReadSettings(files map[string]string) (s Settings, ignored []string) {
	s = Settings{forward: map[string][]string{}, hosts: map[string][]netip.Addr{}}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		r := reader{file: name, out: &s}
		switch {
		case name == "Corefile", strings.HasSuffix(name, ".server"):
			r.lines = corefileLines(files[name])
			r.servers()
		case strings.HasSuffix(name, ".override"):
			r.lines = corefileLines(files[name])
			r.inside([]string{"."})
		}
		ignored = append(ignored, r.ignored...)
	}
	return s, ignored
}

// line is a line's words; braces are words of their own.
type line struct {
	number int
	words  []string
}

func corefileLines(text string) []line {
	var out []line
	number := 0
	for l := range strings.Lines(text) {
		number++
		l, _, _ = strings.Cut(l, "#")
		if words := strings.Fields(l); len(words) > 0 {
			out = append(out, line{number, words})
		}
	}
	return out
}

// reader goes through one file.
type reader struct {
	file    string
	lines   []line
	out     *Settings
	ignored []string
}

func (r *reader) next() (line, bool) {
	if len(r.lines) == 0 {
		return line{}, false
	}
	l := r.lines[0]
	r.lines = r.lines[1:]
	return l, true
}

func (r *reader) ignore(l line, why string) {
	if len(r.ignored) < 20 {
		r.ignored = append(r.ignored, fmt.Sprintf("%s, line %d: %q: %s", r.file, l.number, strings.Join(l.words, " "), why))
	}
}

// servers reads server blocks: zones and a brace.
func (r *reader) servers() {
	for {
		l, more := r.next()
		if !more {
			return
		}
		if l.words[len(l.words)-1] != "{" {
			r.ignore(l, "not the beginning of a server block")
			continue
		}
		var zones []string
		for _, w := range l.words[:len(l.words)-1] {
			zone := strings.TrimSuffix(strings.TrimPrefix(w, "dns://"), ",")
			if host, _, err := net.SplitHostPort(zone); err == nil {
				zone = host
			}
			if zone == "" {
				zone = "."
			}
			if _, ok := dns.IsDomainName(zone); !ok {
				r.ignore(l, zone+" is no domain")
				continue
			}
			zones = append(zones, strings.ToLower(dns.Fqdn(zone)))
		}
		r.inside(zones)
	}
}

// inside reads plugins up to the closing brace or the end.
func (r *reader) inside(zones []string) {
	for {
		l, more := r.next()
		if !more || l.words[0] == "}" {
			return
		}
		block := l.words[len(l.words)-1] == "{"
		switch {
		case l.words[0] == "forward" || l.words[0] == "proxy":
			r.forward(l, zones)
		case l.words[0] == "hosts" && block:
			r.hosts()
			continue
		case !slices.Contains([]string{"errors", "health", "ready", "kubernetes", "prometheus", "cache", "loop", "reload", "loadbalance", "log", "import", "lameduck"}, l.words[0]):
			r.ignore(l, "not supported")
		}
		if block {
			r.skip()
		}
	}
}

// skip passes over a plugin's block, whatever is in it.
func (r *reader) skip() {
	for depth := 1; depth > 0; {
		l, more := r.next()
		if !more {
			return
		}
		if l.words[len(l.words)-1] == "{" {
			depth++
		}
		if l.words[0] == "}" {
			depth--
		}
	}
}

// forward reads "forward FROM TO...". A zone of a server block that FROM is below of is narrowed to FROM.
func (r *reader) forward(l line, zones []string) {
	if len(l.words) < 3 {
		r.ignore(l, "want forward FROM TO...")
		return
	}
	from := strings.ToLower(dns.Fqdn(l.words[1]))
	var servers []string
	for _, to := range l.words[2:] {
		if to == "{" {
			break
		}
		if strings.HasPrefix(to, "/") {
			return // a resolv.conf: the node's own is asked anyway
		}
		if strings.HasPrefix(to, "tls://") {
			r.ignore(l, "DNS over TLS is not supported")
			continue
		}
		server, ok := serverAddress(strings.TrimPrefix(to, "dns://"))
		if !ok {
			r.ignore(l, to+" is no address")
			continue
		}
		servers = append(servers, server)
	}
	if len(servers) == 0 {
		return
	}
	for _, zone := range zones {
		if from != "." && dns.IsSubDomain(zone, from) {
			zone = from
		}
		if len(r.out.forward) < maxZones {
			r.out.forward[zone] = servers
		}
	}
}

func serverAddress(s string) (string, bool) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), "53"
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return "", false
	}
	at, err := netip.ParseAddrPort(net.JoinHostPort(a.String(), port))
	return at.String(), err == nil
}

// hosts reads the inside of a hosts block: "ADDRESS NAME..." and options.
func (r *reader) hosts() {
	for {
		l, more := r.next()
		if !more || l.words[0] == "}" {
			return
		}
		a, err := netip.ParseAddr(l.words[0])
		if err != nil {
			if !slices.Contains([]string{"fallthrough", "ttl", "reload", "no_reverse"}, l.words[0]) {
				r.ignore(l, "not supported")
			}
			continue
		}
		for _, name := range l.words[1:] {
			if _, ok := dns.IsDomainName(name); !ok || len(r.out.hosts) >= maxHosts {
				r.ignore(l, name+" is no name, or there are too many")
				continue
			}
			name = strings.ToLower(dns.Fqdn(name))
			r.out.hosts[name] = append(r.out.hosts[name], a)
		}
	}
}

// servers returns whom to ask for a lower-case name: the servers of the longest zone that it is in; nil for the node's own.
func (s Settings) servers(name string) []string {
	if len(s.forward) == 0 {
		return nil
	}
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if to, ok := s.forward[name[off:]]; ok {
			return to
		}
	}
	return s.forward["."]
}
