package imagetest

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"
)

// Everything that critest names is served, and is the same on every run.
func TestCritest(t *testing.T) {
	for _, need := range []string{busyboxPath, "/usr/sbin/nginx"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("needs %s", need)
		}
	}
	var seen []map[string]string
	for range 2 {
		g := NewRegistry()
		if _, err := Critest(t.Context(), g, ""); err != nil {
			t.Fatal(err)
		}
		digests := map[string]string{}
		for name, d := range g.manifests {
			digests[name] = d.digest
		}
		seen = append(seen, digests)
		if len(seen) == 2 {
			for name, d := range seen[0] {
				if digests[name] != d {
					t.Errorf("%s is %s, then %s", name, d, digests[name])
				}
			}
			serves(t, g)
		}
	}
	a := seen[0]
	if a["pause:3.9"] == a["pause:3.10"] {
		t.Error("the sandbox image is the pause image that specs remove")
	}
	same := map[string]bool{}
	for _, n := range []string{"1:latest", "2:latest", "3:latest", "latest:latest", "tag:test", "tag:all", "tags:1"} {
		d := a["k8s-staging-cri-tools/test-image-"+n]
		if d == "" || same[d] {
			t.Errorf("test-image-%s: %q is missing or not one of its own", n, d)
		}
		same[d] = true
	}
}

func serves(t *testing.T, g *Registry) {
	srv := httptest.NewServer(g)
	defer srv.Close()
	for _, p := range []string{"e2e-test-images/busybox/manifests/1.29-2", "e2e-test-images/nginx/manifests/1.14-2", "k8s-staging-cri-tools/hostnet-nginx-amd64/manifests/latest",
		"e2e-test-images/httpd/manifests/2.4.39-4", "e2e-test-images/nonewprivs/manifests/1.3", "pause/manifests/3.9", "k8s-staging-cri-tools/test-image-tags/manifests/3"} {
		resp, err := http.Get(srv.URL + "/v2/" + p)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", p, resp.Status)
		}
	}
}
