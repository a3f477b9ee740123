package reference

import (
	"errors"
	"strings"
	"testing"
)

const hex64 = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf"

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":                              "docker.io/library/nginx:latest",
		"nginx:1.27":                         "docker.io/library/nginx:1.27",
		"bitnami/redis":                      "docker.io/bitnami/redis:latest",
		"index.docker.io/library/nginx":      "docker.io/library/nginx:latest",
		"docker.io/nginx":                    "docker.io/library/nginx:latest",
		"localhost/a":                        "localhost/a:latest",
		"localhost:5000/a/b:c":               "localhost:5000/a/b:c",
		"127.0.0.1:5000/a":                   "127.0.0.1:5000/a:latest",
		"[::1]:5000/a":                       "[::1]:5000/a:latest",
		"registry.k8s.io/pause:3.9":          "registry.k8s.io/pause:3.9",
		"nginx@sha256:" + hex64:              "docker.io/library/nginx@sha256:" + hex64,
		"nginx:1.27@sha256:" + hex64:         "docker.io/library/nginx@sha256:" + hex64,
		"nginx@sha512:" + hex64 + hex64:      "docker.io/library/nginx@sha512:" + hex64 + hex64,
		"gcr.io/k8s-staging-cri-tools/a-b_c": "gcr.io/k8s-staging-cri-tools/a-b_c:latest",
	} {
		r, err := Parse(in)
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
			continue
		}
		if got := r.String(); got != want {
			t.Errorf("Parse(%q) = %q, want %q", in, got, want)
		}
	}
}

// IM35: every malformed name is an invalid reference, and nothing else.
func TestHostile_IM35(t *testing.T) {
	for _, in := range []string{
		"", " ", ":", "@", "/", "nginx:", "nginx@", "Nginx", "nginx:a b", "nginx\n", "nginx\x00",
		"..", "a/../b", "../a", "/etc/passwd", "a//b", "a/./b", "https://nginx", "nginx:" + strings.Repeat("t", 129),
		"a@sha256:zz", "a@sha256:" + strings.ToUpper(hex64), "a@sha256:" + hex64[1:], "a@md5:d41d8cd98f00b204e9800998ecf8427e",
		"a@sha384:" + hex64 + hex64[:32], "ngіnx", "docker.io／library/nginx", "nginx‮", hex64,
		strings.Repeat("a", 300), strings.Repeat("a/", 300) + "b", strings.Repeat("x", 1<<20),
		"-nginx", "nginx-", "a..b", "a:b:c", "user@host/a", "host:99999999999999999999/..",
	} {
		if r, err := Parse(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("Parse(%.60q) = %v, %v; want ErrInvalid", in, r, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"nginx", "a:b@sha256:" + hex64, "[::1]:5000/a", "a/../b", "host:1/p:t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		if (r.Tag == "") == (r.Digest == "") {
			t.Fatalf("%q: tag %q and digest %q: want exactly one", s, r.Tag, r.Digest)
		}
		for _, c := range strings.Split(r.Path, "/") {
			if c == "" || c == "." || c == ".." {
				t.Fatalf("%q: path %q has component %q", s, r.Path, c)
			}
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Fatalf("%q: normal form %q parses to %v, %v", s, r, again, err)
		}
	})
}
