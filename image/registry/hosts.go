package registry

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// endpoint is one server that is asked for a registry's content, as hosts.toml or
// the defaults say it.
type endpoint struct {
	URL        url.URL     // scheme, host and API root: https://mirror:5000/v2
	Pull       bool        // blobs, and manifests by digest
	Resolve    bool        // manifests by tag
	Header     http.Header // sent with every request to this very host
	CA         []string    // PEM files, added to the system's
	Client     [][2]string // certificate and key files; key may be "" when in the same file
	SkipVerify bool
	Mirror     bool     // not the registry itself: requests carry ?ns=
	TokenHosts []string // token servers at other sites that may get credentials (ours, not containerd's)
}

// hostTable is one [host."..."] table, or the top level for the server itself.
type hostTable struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	TokenHosts   []string       `toml:"token_hosts"`
}

type hostsFile struct {
	hostTable
	Server string               `toml:"server"`
	Host   map[string]hostTable `toml:"host"`
}

const maxHostsFile = 1 << 20 // bytes

// parseHosts reads a hosts.toml for registry host; dir is where relative file
// names start. The result is in the order to try: the [host] tables as written,
// then the server (by default the registry itself).
//
// Keys (containerd's): server; and at top level for the server or in a table
// [host."https://mirror"]: capabilities (pull, resolve, push), ca, client,
// skip_verify, header, override_path. Keys that are not known are ignored, as
// containerd does. Ours: token_hosts.
func parseHosts(host, dir string, b []byte) ([]endpoint, error) {
	if len(b) > maxHostsFile {
		return nil, fmt.Errorf("larger than %d bytes", maxHostsFile)
	}
	var f hostsFile
	if err := toml.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	var out []endpoint
	for _, name := range hostOrder(b, f.Host) {
		e, err := newEndpoint(name, f.Host[name], dir)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", name, err)
		}
		e.Mirror = !isOrigin(host, e.URL.Host)
		out = append(out, e)
	}
	e := defaultEndpoint(host)
	if f.Server != "" {
		var err error
		if e, err = newEndpoint(f.Server, f.hostTable, dir); err != nil {
			return nil, fmt.Errorf("server %q: %w", f.Server, err)
		}
	} else if err := applyTable(&e, f.hostTable, dir); err != nil {
		return nil, err
	}
	e.Mirror = !isOrigin(host, e.URL.Host)
	if slices.ContainsFunc(out, func(o endpoint) bool { return o.URL == e.URL && o.Pull && o.Resolve }) {
		return out, nil // named twice: ask once
	}
	return append(out, e), nil
}

// hostOrder lists the [host."x"] tables in the order written; a decoded map has lost it.
func hostOrder(b []byte, tables map[string]hostTable) []string {
	var order []string
	var p unstable.Parser
	p.Reset(bytes.Clone(b)) // the parser may write to its input
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		it := e.Key()
		var keys []string
		for it.Next() {
			keys = append(keys, string(it.Node().Data))
		}
		if len(keys) >= 2 && keys[0] == "host" && !slices.Contains(order, keys[1]) {
			if _, ok := tables[keys[1]]; ok {
				order = append(order, keys[1])
			}
		}
	}
	var rest []string // written in another way: host = { ... }
	for name := range tables {
		if !slices.Contains(order, name) {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	return append(order, rest...)
}

func newEndpoint(server string, t hostTable, dir string) (endpoint, error) {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil {
		return endpoint{}, err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return endpoint{}, fmt.Errorf("want http(s)://host[:port][/path]")
	}
	root := strings.TrimSuffix(u.Path, "/")
	if !t.OverridePath && !strings.HasSuffix(root, "/v2") {
		root = path.Join("/", root, "v2")
	}
	e := endpoint{URL: url.URL{Scheme: u.Scheme, Host: u.Host, Path: root}, Pull: true, Resolve: true}
	return e, applyTable(&e, t, dir)
}

func applyTable(e *endpoint, t hostTable, dir string) error {
	if len(t.Capabilities) > 0 {
		e.Pull, e.Resolve = slices.Contains(t.Capabilities, "pull"), slices.Contains(t.Capabilities, "resolve")
	}
	if t.SkipVerify != nil {
		e.SkipVerify = *t.SkipVerify
	}
	e.TokenHosts = t.TokenHosts
	var err error
	if e.CA, err = stringList("ca", t.CA); err != nil {
		return err
	}
	for i := range e.CA {
		e.CA[i] = absolute(dir, e.CA[i])
	}
	if e.Client, err = clientPairs(t.Client, dir); err != nil {
		return err
	}
	for k, v := range t.Header {
		vals, err := stringList("header", v)
		if err != nil {
			return err
		}
		if e.Header == nil {
			e.Header = http.Header{}
		}
		e.Header[http.CanonicalHeaderKey(k)] = vals
	}
	return nil
}

// stringList reads what may be a string or a list of strings.
func stringList(key string, v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var out []string
		for _, x := range v {
			s, ok := x.(string)
			if !ok {
				return nil, fmt.Errorf("%s: want a string or a list of strings", key)
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s: want a string or a list of strings", key)
}

// clientPairs reads client = "both.pem", ["a.pem", "b.pem"] or [["cert","key"], ...].
func clientPairs(v any, dir string) ([][2]string, error) {
	list, ok := v.([]any)
	if !ok {
		one, err := stringList("client", v)
		if err != nil || len(one) == 0 {
			return nil, err
		}
		return [][2]string{{absolute(dir, one[0])}}, nil
	}
	var out [][2]string
	for _, x := range list {
		pair, err := stringList("client", x)
		if err != nil {
			return nil, err
		}
		switch len(pair) {
		case 1:
			out = append(out, [2]string{absolute(dir, pair[0])})
		case 2:
			out = append(out, [2]string{absolute(dir, pair[0]), absolute(dir, pair[1])})
		default:
			return nil, fmt.Errorf("client: want certificate and key")
		}
	}
	return out, nil
}

func absolute(dir, file string) string {
	if file == "" || path.IsAbs(file) {
		return file
	}
	return path.Join(dir, file)
}
