package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

const dockerHub, dockerHubAPI = "docker.io", "registry-1.docker.io"

// defaultEndpoint is the registry itself: TLS, except on loopback, where plain
// HTTP is spoken as containerd and Docker do.
func defaultEndpoint(host string) endpoint {
	e := endpoint{URL: url.URL{Scheme: "https", Host: host, Path: "/v2"}, Pull: true, Resolve: true}
	if host == dockerHub {
		e.URL.Host = dockerHubAPI
	}
	if isLoopback(host) {
		e.URL.Scheme = "http"
	}
	return e
}

func isOrigin(registry, host string) bool {
	return host == registry || registry == dockerHub && host == dockerHubAPI
}

func isLoopback(hostport string) bool {
	h := hostname(hostport)
	if h == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(h)
	return err == nil && a.IsLoopback()
}

// hostname drops the port and the brackets of an IPv6 address.
func hostname(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}

// sameSite says whether two host names are run by the same people as far as
// names can tell: equal, or under one registrable domain (auth.docker.io and
// registry-1.docker.io are; two customers of a hosting suffix are not).
func sameSite(a, b string) bool {
	a, b = strings.ToLower(strings.TrimSuffix(hostname(a), ".")), strings.ToLower(strings.TrimSuffix(hostname(b), "."))
	if a == b {
		return true
	}
	if _, err := netip.ParseAddr(a); err == nil {
		return false
	}
	da, err := publicsuffix.EffectiveTLDPlusOne(a)
	if err != nil {
		return false
	}
	db, err := publicsuffix.EffectiveTLDPlusOne(b)
	return err == nil && da == db
}

// endpoints finds what to ask for registry host: the first of dirs that has a
// folder for it, else a _default folder, else the defaults. A folder without
// hosts.toml may hold *.crt, *.cert and *.key files (Docker's form).
func endpoints(host string, dirs []string) ([]endpoint, error) {
	for _, name := range []string{host, strings.ReplaceAll(host, ":", "_") + "_", "_default"} {
		if name == "_" || strings.ContainsRune(name, '/') {
			continue
		}
		for _, d := range dirs {
			dir := filepath.Join(d, name)
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				continue
			}
			eps, err := endpointsIn(host, dir)
			if err != nil {
				return nil, fmt.Errorf("registry %s: read %s: %w", host, filepath.Join(dir, "hosts.toml"), err)
			}
			return eps, nil
		}
	}
	return []endpoint{defaultEndpoint(host)}, nil
}

func endpointsIn(host, dir string) ([]endpoint, error) {
	f, err := os.Open(filepath.Join(dir, "hosts.toml"))
	if errors.Is(err, fs.ErrNotExist) {
		e := defaultEndpoint(host)
		err := dockerCerts(&e, dir)
		return []endpoint{e}, err
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHostsFile+1))
	if err != nil {
		return nil, err
	}
	return parseHosts(host, dir, b)
}

// dockerCerts reads Docker's layout: *.crt are CAs, x.cert with x.key a client pair.
func dockerCerts(e *endpoint, dir string) error {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(ents))
	for _, ent := range ents {
		names = append(names, ent.Name())
	}
	for _, n := range names {
		switch filepath.Ext(n) {
		case ".crt":
			e.CA = append(e.CA, filepath.Join(dir, n))
		case ".cert":
			key := strings.TrimSuffix(n, ".cert") + ".key"
			if !slices.Contains(names, key) {
				return fmt.Errorf("%s has no %s beside it", n, key)
			}
			e.Client = append(e.Client, [2]string{filepath.Join(dir, n), filepath.Join(dir, key)})
		}
	}
	return nil
}
