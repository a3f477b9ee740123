package image_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/image/imagetest"
)

func TestAuthentication(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	b.add("x:1", img, err)
	tokens := &imagetest.TokenServer{User: "user", Password: "pa:ss", IdentityToken: "identity"}
	realm := httptest.NewServer(tokens)
	t.Cleanup(realm.Close)
	tokens.Realm = realm.URL + "/token?extra=1"
	encoded := base64.StdEncoding.EncodeToString([]byte("user:pa:ss"))
	good := map[string]*image.Auth{
		"user":     {Username: "user", Password: "pa:ss"},
		"encoded":  {Auth: encoded},
		"address":  {Auth: encoded, ServerAddress: "https://index.docker.io/v1/"},
		"identity": {IdentityToken: "identity"},
	}
	bad := map[string]*image.Auth{"none": nil, "empty": {}, "wrong": {Username: "user", Password: "no"}, "garbage": {Auth: "!!"}, "no colon": {Auth: "dXNlcg=="},
		"identity": {IdentityToken: "no"}, "elsewhere": {Auth: encoded, ServerAddress: "quay.io"}, "token": {RegistryToken: "no"}}
	for _, mode := range []string{"bearer", "basic"} {
		f := imagetest.Fault(tokens.Demand)
		if mode == "basic" {
			f = imagetest.BasicAuth("user", "pa:ss")
			delete(good, "identity")
		}
		b.reg.SetFaults(f)
		for name, a := range bad {
			_, err := b.store.Pull(t.Context(), "x:1", a)
			if !errors.Is(err, image.ErrUnauthorized) {
				t.Errorf("%s, %s: %v; want ErrUnauthorized", mode, name, err)
			}
			if strings.Contains(fmt.Sprint(err), "pa:ss") || strings.Contains(fmt.Sprint(err), "dXNlcg") {
				t.Errorf("%s, %s: the error has a secret: %v", mode, name, err)
			}
		}
		for name, a := range good {
			if _, err := b.store.Pull(t.Context(), "x:1", a); err != nil {
				t.Errorf("%s, %s: %v", mode, name, err)
			}
			if err := b.store.Remove(t.Context(), "x:1"); err != nil {
				t.Error(err)
			}
		}
	}
	b.reg.SetFaults(imagetest.BasicAuth("user", "pa:ss"))
	_, err = b.store.Pull(t.Context(), "x:1", nil)
	want := `failed to resolve reference "docker.io/library/x:1": pull access denied, repository does not exist or may require authorization: server message: unauthorized: authentication required`
	if !strings.HasPrefix(fmt.Sprint(err), want) {
		t.Errorf("got  %v\nwant %s...", err, want)
	}
}

// A token that expires in the middle of a pull is fetched anew.
func TestTokenExpires(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{imagetest.Files(map[string]string{"a": random(300_000)}), imagetest.Files(map[string]string{"b": "b"})}})
	b.add("x:1", img, err)
	tokens := &imagetest.TokenServer{}
	realm := httptest.NewServer(tokens)
	t.Cleanup(realm.Close)
	tokens.Realm = realm.URL
	var n atomic.Int64
	expire := func(http.ResponseWriter, *http.Request, http.Handler) bool {
		if n.Add(1)%4 == 1 {
			tokens.Expire()
		}
		return false
	}
	b.reg.SetFaults(imagetest.On("/blobs/", expire), tokens.Demand, imagetest.On("/blobs/", imagetest.Times(3, imagetest.Cut(50_000))))
	b.pull("x:1")
	if n := len(tokens.Requests()); n < 3 {
		t.Errorf("%d token requests; the tokens did not expire in the middle", n)
	}
}

func TestDockerConfig(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	b.add("docker.io/library/x:1", img, err)
	b.add("registry.k8s.io/team/x:1", img, err)
	enc := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	file := filepath.Join(t.TempDir(), "config.json")
	os.WriteFile(file, fmt.Appendf(nil, `{"auths":{"https://index.docker.io/v1/":{"auth":%q},"registry.k8s.io":{"auth":%q},"registry.k8s.io/team":{"username":"user","password":"right"}},"credHelpers":{"x":"y"}}`,
		enc("user:right"), enc("user:wrong")), 0o600)
	b.store.Close()
	cfg := b.config()
	cfg.DockerConfigs = []string{"/does/not/exist", file}
	if b.store, err = image.Open(cfg); err != nil {
		t.Fatal(err)
	}
	b.reg.SetFaults(imagetest.BasicAuth("user", "right"))
	b.pull("x:1")
	b.pull("registry.k8s.io/team/x:1") // the longer key wins
	if _, err := b.store.Pull(t.Context(), "registry.k8s.io/other:1", nil); !errors.Is(err, image.ErrUnauthorized) {
		t.Errorf("the shorter key: %v", err)
	}
	os.WriteFile(file, []byte(`{"auths": "sesame"`), 0o600)
	if _, err := b.store.Pull(t.Context(), "x:1", nil); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a broken file: %v", err)
	}
}

func TestMirrors(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	b.add("x:1", img, err)
	dead := httptest.NewServer(nil)
	dead.Close()
	empty := imagetest.NewRegistry()
	esrv := httptest.NewServer(empty)
	t.Cleanup(esrv.Close)
	hosts := func(text string) {
		os.WriteFile(filepath.Join(b.certs, "docker.io", "hosts.toml"), []byte(text), 0o644)
	}
	// A dead mirror, one that lacks it, then the server.
	hosts(fmt.Sprintf("server = %q\n[host.%q]\n[host.%q]\n", b.srv.URL, dead.URL, esrv.URL))
	b.pull("x:1")
	b.store.Remove(t.Context(), "x:1")
	// What all lack is not found, with the words of each.
	b.fails("x:2", nil, image.ErrNotFound, "connection refused", strings.TrimPrefix(esrv.URL, "http://"))
	// A dead server, with a mirror that may only pull: a tag cannot be resolved.
	hosts(fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n", dead.URL, b.srv.URL))
	b.fails("x:1", nil, image.ErrUnreachable)
	d, _ := img.Digest()
	b.pull("x@" + d.String())
	// A mirror whose blobs are gone: the layers come from the server.
	b.store.Remove(t.Context(), "x@"+d.String())
	half := imagetest.NewRegistry()
	half.Add("x:1", img)
	half.SetFaults(imagetest.On("/blobs/", imagetest.Status(404, "gone")))
	hsrv := httptest.NewServer(half)
	t.Cleanup(hsrv.Close)
	hosts(fmt.Sprintf("server = %q\n[host.%q]\n", b.srv.URL, hsrv.URL))
	half.Requests()
	b.pull("x:1")
	for _, r := range half.Requests() {
		if !strings.HasPrefix(r.Path, "/v2/library/x/") {
			t.Errorf("mirror was asked for %s", r.Path)
		}
	}
	hosts("this is not toml")
	b.store.Remove(t.Context(), "x:1")
	b.fails("x:1", nil, nil, "hosts.toml")
}

func TestUnreachable(t *testing.T) {
	b := newBench(t)
	for ref, words := range map[string]string{
		"127.0.0.1:1/x:1":                     "connection refused",
		"registry.does-not-exist.invalid/x:1": "registry.does-not-exist.invalid",
	} {
		b.fails(ref, nil, image.ErrUnreachable, words, "failed to resolve reference")
	}
}
