package registry

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/image/reference"
)

func show(e endpoint) string {
	s := e.URL.String()
	if e.Pull {
		s += " pull"
	}
	if e.Resolve {
		s += " resolve"
	}
	if e.Mirror {
		s += " mirror"
	}
	if e.SkipVerify {
		s += " insecure"
	}
	if len(e.CA) > 0 {
		s += fmt.Sprintf(" ca=%s", e.CA)
	}
	if len(e.Client) > 0 {
		s += fmt.Sprintf(" client=%s", e.Client)
	}
	if len(e.Header) > 0 {
		s += fmt.Sprintf(" %v", e.Header)
	}
	return s
}

func TestParseHosts(t *testing.T) {
	for name, c := range map[string]struct{ host, text, want string }{
		"empty":       {"docker.io", "", "https://registry-1.docker.io/v2 pull resolve"},
		"loopback":    {"localhost:5000", "", "http://localhost:5000/v2 pull resolve"},
		"order":       {"docker.io", "[host.\"https://b\"]\n[host.'http://a:1']\n[host.\"c\"]\n", "https://b/v2 pull resolve mirror\nhttp://a:1/v2 pull resolve mirror\nhttps://c/v2 pull resolve mirror\nhttps://registry-1.docker.io/v2 pull resolve"},
		"caps":        {"r.example", "capabilities=['pull']\n[host.\"https://m\"]\ncapabilities = [\"resolve\", \"push\"]", "https://m/v2 resolve mirror\nhttps://r.example/v2 pull"},
		"server":      {"r.example", "server = \"https://other.example\"\nskip_verify = true", "https://other.example/v2 pull resolve mirror insecure"},
		"path":        {"r.example", "server = \"https://m/some/prefix/\"", "https://m/some/prefix/v2 pull resolve mirror"},
		"path v2":     {"r.example", "server = \"https://m/v2/prefix/v2\"", "https://m/v2/prefix/v2 pull resolve mirror"},
		"override":    {"r.example", "[host.\"https://m/v2/prefix\"]\noverride_path = true", "https://m/v2/prefix pull resolve mirror\nhttps://r.example/v2 pull resolve"},
		"same server": {"r.example", "server = \"http://m\"\n[host.\"http://m\"]\n", "http://m/v2 pull resolve mirror"},
		"files": {"r.example", "ca = \"ca.pem\"\nclient = [[\"c.pem\", \"/k.pem\"], [\"both.pem\"]]\n[host.\"https://m\"]\nca=[\"/a\",\"b\"]\nclient=\"x.pem\"\n[host.\"https://m\".header]\nx-key = [\"a\",\"b\"]\ny=\"z\"",
			"https://m/v2 pull resolve mirror ca=[/a /dir/b] client=[[/dir/x.pem ]] map[X-Key:[a b] Y:[z]]\nhttps://r.example/v2 pull resolve ca=[/dir/ca.pem] client=[[/dir/c.pem /k.pem] [/dir/both.pem ]]"},
		"unknown keys": {"r.example", "frob = 1\n[host.\"https://m\"]\ndial_timeout = \"1s\"\n", "https://m/v2 pull resolve mirror\nhttps://r.example/v2 pull resolve"},
	} {
		eps, err := parseHosts(c.host, "/dir", []byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, e := range eps {
			got = append(got, show(e))
		}
		if g := strings.Join(got, "\n"); g != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, g, c.want)
		}
	}
	for _, text := range []string{"server = 1", "x", "[host.\"ftp://m\"]", "[host.\"https://u:p@m\"]", "server = \"https://\"", "ca = 1", "ca = [1]",
		"client = [[\"a\",\"b\",\"c\"]]", "client = [[1]]", "server = \"https://m?x=y\"", "server = \"://\"", "[host]\n\"x\" = 1", "capabilities = 5"} {
		if eps, err := parseHosts("r.example", "/dir", []byte(text)); err == nil {
			t.Errorf("%q: no error, %v", text, eps)
		}
	}
}

func TestEndpoints(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	put := func(dir, name, text string) {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
	}
	put(first, "a.example/hosts.toml", `server = "https://first"`)
	put(second, "a.example/hosts.toml", `server = "https://second"`)
	put(second, "b.example:5000/hosts.toml", `server = "https://b"`)
	put(second, "c.example_5000_/hosts.toml", `server = "https://c"`)
	put(second, "_default/hosts.toml", `[host."https://mirror"]`)
	put(second, "d.example/ca.crt", "")
	put(second, "d.example/x.cert", "")
	put(second, "d.example/x.key", "")
	for host, want := range map[string]string{
		"a.example": "https://first/v2 pull resolve mirror", "b.example:5000": "https://b/v2 pull resolve mirror", "c.example:5000": "https://c/v2 pull resolve mirror",
		"d.example": fmt.Sprintf("https://d.example/v2 pull resolve ca=[%s/d.example/ca.crt] client=[[%s/d.example/x.cert %s/d.example/x.key]]", second, second, second),
		"e.example": "https://mirror/v2 pull resolve mirror\nhttps://e.example/v2 pull resolve",
	} {
		eps, err := endpoints(host, []string{first, second, "/does/not/exist"})
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		var got []string
		for _, e := range eps {
			got = append(got, show(e))
		}
		if g := strings.Join(got, "\n"); g != want {
			t.Errorf("%s: got\n%s\nwant\n%s", host, g, want)
		}
	}
	put(first, "bad.example/hosts.toml", "x")
	if _, err := endpoints("bad.example", []string{first}); err == nil || !strings.Contains(err.Error(), "bad.example/hosts.toml") {
		t.Errorf("a bad file: %v; want its name in the error", err)
	}
}

func TestSameSite(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"registry-1.docker.io", "auth.docker.io", true}, {"registry.example.com:5000", "gitlab.example.com", true},
		{"ghcr.io", "ghcr.io", true}, {"10.0.0.1:5000", "10.0.0.1:5001", true}, {"localhost:1", "localhost:2", true},
		{"docker.io.evil.com", "docker.io", false}, {"a.co.uk", "b.co.uk", false}, {"a.github.io", "b.github.io", false},
		{"10.0.0.1", "10.0.0.2", false}, {"localhost", "127.0.0.1", false}, {"io", "io", true}, {"a.io", "b.io", false}, {"[::1]:5", "[::1]:6", true},
	} {
		if got := sameSite(c.a, c.b); got != c.want {
			t.Errorf("sameSite(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add([]byte("server = \"https://m\"\nca = [\"a\"]\n[host.\"https://x\"]\ncapabilities = [\"pull\"]\n[host.\"https://x\".header]\na = \"b\"\n"))
	f.Add([]byte("host = { \"https://a\" = { client = [[\"a\", \"b\"]] } }"))
	f.Fuzz(func(t *testing.T, b []byte) {
		eps, err := parseHosts("r.example", "/dir", b)
		if err != nil {
			return
		}
		if len(eps) == 0 {
			t.Fatal("no endpoint")
		}
		for _, e := range eps {
			if e.URL.Scheme != "http" && e.URL.Scheme != "https" || e.URL.Host == "" || e.URL.User != nil {
				t.Fatalf("endpoint %q", e.URL.String())
			}
		}
	})
}

func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull"`,
		`Basic realm="x", Bearer realm=y`, `Negotiate`, `Basic`, `Bearer realm="a\"b" , error="x"`, `a=b, c=`, `"`, `Bearer realm="`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges([]string{s}) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Fatalf("%q: scheme %q", s, c.scheme)
			}
		}
	})
}

func TestParseChallenges(t *testing.T) {
	for in, want := range map[string]string{
		`Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push"`: `[{bearer map[realm:https://a/token scope:repository:a/b:pull,push service:s]}]`,
		`Basic realm=x`: `[{basic map[realm:x]}]`,
		`Negotiate, Basic realm="a", Bearer realm=b`: `[{negotiate map[]} {basic map[realm:a]} {bearer map[realm:b]}]`,
		`Bearer realm="a\"b\\", REALM=second`:        `[{bearer map[realm:a"b\]}]`,
		`Bearer realm = "a" , service = b`:           `[{bearer map[realm:a service:b]}]`,
		``:                                           `[]`,
	} {
		if got := fmt.Sprint(parseChallenges([]string{in})); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"r.example":{"auth":"YTpi"},"https://r.example/v1/":{"username":"a","password":"b"},"other.example":{"identitytoken":"t"}}}`))
	f.Add([]byte(`{"auths":{"r.example/team":{"registrytoken":"x"},"r.example.evil":{"auth":"eA=="},"":{}}}`))
	f.Add([]byte(`{"auths":null,"credsStore":"desktop"}`))
	ref, err := reference.Parse("r.example/team/app:1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok, err := findAuth(b, ref)
		if err != nil || !ok {
			if a != (Auth{}) {
				t.Fatalf("credentials of nobody: %+v", a)
			}
			return
		}
		var doc struct {
			Auths map[string]json.RawMessage
		}
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatal(err)
		}
		for key := range doc.Auths {
			if serverHost(key) == ref.Host {
				return
			}
		}
		t.Fatalf("credentials of another host: %+v", a)
	})
}
