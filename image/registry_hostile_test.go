package image_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/image/imagetest"
	"keelson.dev/keelson/image/registry"
)

// tiny is an image of one file with the given content.
func tiny(content string) (v1.Image, error) {
	return imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{imagetest.Files(map[string]string{"file": content})}})
}

// random is text that does not compress well, n bytes of it.
func random(n int) string {
	var b strings.Builder
	for x := uint64(1); b.Len() < n; {
		x = x*6364136223846793005 + 1442695040888963407
		fmt.Fprintf(&b, "%016x", x)
	}
	return b.String()[:n]
}

// fails pulls ref and wants an error of the kind, or any if nil, and nothing kept.
func (b *bench) fails(ref string, auth *image.Auth, kind error, words ...string) {
	b.Helper()
	img, err := b.store.Pull(b.Context(), ref, auth)
	if err == nil || kind != nil && !errors.Is(err, kind) {
		b.Fatalf("Pull(%q) = %s, %v; want %v", ref, img.ID, err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			b.Errorf("Pull(%q): %v\nwant in it: %q", ref, err, w)
		}
	}
	if _, err := b.store.Get(ref); !errors.Is(err, image.ErrNotFound) {
		b.Errorf("after the failed pull, Get(%q): %v", ref, err)
	}
	b.clean()
}

// clean checks that no draft layer or mount is left.
func (b *bench) clean() {
	b.Helper()
	for _, g := range []string{"layers/draft-*", "containers/*", "views/*"} {
		if left, _ := filepath.Glob(filepath.Join(b.root, g)); len(left) > 0 {
			b.Errorf("left behind: %q", left)
		}
	}
}

func TestHostile_IM12(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	good := b.add("good:1", img, err)
	raw, _ := img.RawManifest()

	big := append(bytes.Clone(raw[:len(raw)-1]), []byte(`,"annotations":{"a":"`+strings.Repeat("x", 5<<20)+`"}}`)...)
	b.reg.AddDocument("big:1", string(types.OCIManifestSchema1), big)
	b.fails("big:1", nil, image.ErrInvalidImage, "bytes")

	// A body without Content-Length that never ends is cut off at the limit.
	b.reg.SetFaults(imagetest.On("/endless/manifests/", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		return true
	}))
	b.fails("endless:1", nil, image.ErrInvalidImage, "more than")
	b.reg.SetFaults()

	var m v1.Manifest
	json.Unmarshal(raw, &m)
	for len(m.Layers) < 10_000 {
		m.Layers = append(m.Layers, m.Layers[0])
	}
	many, _ := json.Marshal(m)
	b.reg.AddDocument("many:1", string(types.OCIManifestSchema1), many)
	b.fails("many:1", nil, image.ErrInvalidImage, "layers")

	last, size, mt := good, int64(len(raw)), types.OCIManifestSchema1
	for range 1000 {
		h, _ := v1.NewHash(last)
		ix, _ := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{MediaType: mt, Digest: h, Size: size}}})
		last, _ = b.reg.AddDocument("nested:1", string(types.OCIImageIndex), ix)
		size, mt = int64(len(ix)), types.OCIImageIndex
	}
	b.reg.Requests()
	b.fails("nested:1", nil, image.ErrInvalidImage, "nested")
	if n := len(b.reg.Requests()); n > 10 {
		t.Errorf("%d requests for a nested index", n)
	}
}

func TestHostile_IM13(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	b.add("good:1", img, err)
	raw, _ := img.RawManifest()
	with := func(extra string) []byte { return append(bytes.Clone(raw[:len(raw)-1]), []byte(extra+"}")...) }
	for name, c := range map[string]struct {
		mediaType string
		body      []byte
	}{
		"both":      {string(types.OCIManifestSchema1), with(`,"manifests":[]`)},
		"bothindex": {string(types.OCIImageIndex), bytes.Replace(with(`,"manifests":[]`), []byte(types.OCIManifestSchema1), []byte(types.OCIImageIndex), 1)},
		"othertype": {string(types.OCIImageIndex), raw},
		"case":      {string(types.OCIManifestSchema1), with(`,"Manifests":[]`)},
		"twice":     {string(types.OCIManifestSchema1), with(`,"layers":[]`)},
		"trailing":  {string(types.OCIManifestSchema1), append(bytes.Clone(raw), []byte(`{}`)...)},
		"notjson":   {string(types.OCIManifestSchema1), []byte("<html>")},
		"array":     {string(types.OCIManifestSchema1), []byte("[]")},
	} {
		b.reg.AddDocument(name+":1", c.mediaType, c.body)
		b.fails(name+":1", nil, image.ErrInvalidImage)
	}
	for _, ct := range []string{"text/html", "application/json", "application/octet-stream", "garbage;;", "application/vnd.docker.distribution.manifest.v1+json"} {
		b.reg.SetFaults(imagetest.On("/manifests/", imagetest.ContentType(ct)))
		b.fails("good:1", nil, image.ErrUnsupported)
	}
	b.reg.SetFaults()
	b.pull("good:1")
}

func TestHostile_IM14(t *testing.T) {
	b := newBench(t)
	img, err := tiny(random(100_000))
	b.add("x:1", img, err)
	layers, _ := img.Layers()
	d, _ := layers[0].Digest()
	rc, _ := layers[0].Compressed()
	right, _ := io.ReadAll(rc)
	flipped := bytes.Clone(right)
	flipped[len(flipped)/2] ^= 1
	other, _ := tiny(random(100_001)[1:]) // as long, uncompressed
	ol, _ := other.Layers()
	rc, _ = ol[0].Compressed()
	valid, _ := io.ReadAll(rc)
	for name, wrong := range map[string][]byte{
		"flipped": flipped, "short": right[:len(right)-1], "longer": append(bytes.Clone(right), 0),
		"other": valid, "empty": {}, "noise": []byte(random(len(right))),
	} {
		b.reg.SetBlob(d.String(), wrong)
		t.Run(name, func(t *testing.T) {
			b.fails("x:1", nil, nil)
			for _, dir := range []string{"blobs/sha256/" + d.Hex, "ingest/sha256-" + d.Hex} {
				if _, err := os.Stat(filepath.Join(b.root, dir)); err == nil {
					t.Errorf("%s is still there", dir)
				}
			}
		})
	}
	// Chunked, so that no Content-Length gives the longer blob away.
	b.reg.SetFaults(imagetest.On(d.Hex, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
		w.Write(right[:10])
		http.NewResponseController(w).Flush()
		w.Write(right[10:])
		for range 100 {
			w.Write(right)
		}
		return true
	}))
	b.fails("x:1", nil, registry.ErrSize)
	b.reg.SetFaults()
	b.reg.SetBlob(d.String(), right)
	b.pull("x:1")
}

func TestHostile_IM15(t *testing.T) {
	b := newBench(t)
	img, err := tiny(random(100_000))
	b.add("x:1", img, err)
	b.pull("x:1")
	layers, _ := img.Layers()
	d, _ := layers[0].Digest()
	blob := filepath.Join(b.root, "blobs/sha256", d.Hex)
	flip := func() {
		f, err := os.OpenFile(blob, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var c [1]byte
		f.ReadAt(c[:], 5000)
		c[0] ^= 1
		f.WriteAt(c[:], 5000)
	}
	flip()
	if err := b.store.Verify(t.Context(), "x:1"); !errors.Is(err, image.ErrCorrupt) || !strings.Contains(err.Error(), d.String()) {
		t.Errorf("Verify of a flipped blob: %v", err)
	}
	b.pull("x:1") // fetches it anew
	if err := b.store.Verify(t.Context(), "x:1"); err != nil {
		t.Errorf("Verify after the next pull: %v", err)
	}
	// An image whose layer must be unpacked again from a blob that went bad.
	flip()
	again, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{imagetest.Files(map[string]string{"a": "a"}),
		imagetest.Files(map[string]string{"file": random(100_000)})}})
	b.add("y:1", again, err)
	b.pull("y:1")
	if err := b.store.Verify(t.Context(), "y:1"); err != nil {
		t.Error(err)
	}
}

func TestHostile_IM16(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	b.add("x:1", img, err)
	auth := &image.Auth{Username: "user", Password: "sesame"}
	secret := func(r *http.Request) bool {
		dump := fmt.Sprint(r.Header) + r.URL.String()
		r.ParseForm()
		dump += fmt.Sprint(r.Form)
		u, p, _ := r.BasicAuth()
		return strings.Contains(dump+u+p, "sesame") || strings.Contains(dump, "token-") || strings.Contains(dump, "Keep-Secret")
	}
	var mu sync.Mutex
	var leaks []string
	asked := 0
	attacker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked++
		if secret(r) {
			leaks = append(leaks, fmt.Sprint(r.Method, r.URL, r.Header))
		}
		mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/token") {
			json.NewEncoder(w).Encode(map[string]string{"token": "anon"})
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+"http://"+r.Host+`/token",service="x"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(attacker.Close)
	elsewhere := strings.Replace(attacker.URL, "127.0.0.1", "localhost", 1) // another host name
	dir := filepath.Join(b.certs, "docker.io")
	os.WriteFile(filepath.Join(dir, "hosts.toml"), fmt.Appendf(nil, "server = %q\n[header]\n x-key = \"Keep-Secret\"\n", b.srv.URL), 0o644)
	tokens := &imagetest.TokenServer{User: "user", Password: "sesame"}
	realm := httptest.NewServer(tokens)
	t.Cleanup(realm.Close)
	tokens.Realm = realm.URL + "/token"

	check := func(what string, wantAsked bool) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if len(leaks) > 0 {
			t.Errorf("%s: credentials went to the attacker: %q", what, leaks)
		}
		if wantAsked && asked == 0 {
			t.Errorf("%s: the attacker was not asked: the test shows nothing", what)
		}
		leaks, asked = nil, 0
	}
	for name, to := range map[string]string{"other host": elsewhere, "other port": attacker.URL} {
		for _, kind := range []string{"/manifests/", "/blobs/"} {
			b.reg.SetFaults(tokens.Demand, imagetest.On(kind, imagetest.Redirect(to)))
			b.fails("x:1", auth, image.ErrUnauthorized)
			check("redirect of "+kind+" to "+name, true)
			b.reg.SetFaults(imagetest.BasicAuth("user", "sesame"), imagetest.On(kind, imagetest.Redirect(to)))
			b.fails("x:1", auth, image.ErrUnauthorized)
			check("redirect of "+kind+" to "+name+" with basic auth", true)
		}
	}
	for _, a := range []*image.Auth{auth, {IdentityToken: "sesame"}} {
		evil := &imagetest.TokenServer{Realm: elsewhere + "/token"}
		b.reg.SetFaults(evil.Demand)
		b.fails("x:1", a, image.ErrUnauthorized)
		check("token realm at another site", true)
	}
	for _, bad := range []string{"http://169.254.169.254/latest/meta-data", "http://[fe80::1%25lo]/x", "file:///etc/passwd", "gopher://x/"} {
		b.reg.SetFaults(imagetest.On("/manifests/", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			w.Header().Set("Location", bad)
			w.WriteHeader(http.StatusFound)
			return true
		}))
		b.fails("x:1", auth, nil)
		b.reg.SetFaults((&imagetest.TokenServer{Realm: bad}).Demand)
		b.fails("x:1", auth, nil)
	}
	b.reg.SetFaults(tokens.Demand)
	if _, err := b.store.Pull(t.Context(), "x:1", auth); err != nil {
		t.Errorf("pull with a token server of the same host: %v", err)
	}
	b.fails("x:2", &image.Auth{Username: "user", Password: "sesame", ServerAddress: "https://other.example.com"}, image.ErrUnauthorized)
}

func TestHostile_IM17(t *testing.T) {
	b := newBench(t)
	content := random(3 << 20)
	img, err := tiny(content)
	b.add("x:1", img, err)
	whole := func(ref string) {
		t.Helper()
		b.pull(ref)
		root := b.mount("c", ref)
		defer b.store.UnmountRootfs(t.Context(), "c")
		if got, err := os.ReadFile(filepath.Join(root, "file")); string(got) != content {
			t.Errorf("content differs: %d bytes, %v", len(got), err)
		}
	}
	t.Run("cut", func(t *testing.T) { // every answer breaks off; each continues the one before
		b.reg.SetFaults(imagetest.On("/blobs/", imagetest.Cut(100_000)))
		b.reg.Requests()
		whole("x:1")
		ranges, blobs := 0, 0
		for _, r := range b.reg.Requests() {
			if strings.Contains(r.Path, "/blobs/") {
				blobs++
			}
			if r.Range != "" && r.Range != "bytes=0-" {
				ranges++
			}
		}
		if ranges < 10 || blobs > ranges+3 {
			t.Errorf("%d blob requests, %d of them with a range", blobs, ranges)
		}
	})
	fresh := func(n string) string {
		img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{imagetest.Files(map[string]string{"file": content, "n": n})}})
		b.add(n+":1", img, err)
		return n + ":1"
	}
	t.Run("no ranges", func(t *testing.T) {
		ref := fresh("a")
		b.reg.SetFaults(imagetest.On("/blobs/", imagetest.Times(2, imagetest.Cut(500_000))), imagetest.On("/blobs/", imagetest.NoRanges()))
		whole(ref)
	})
	t.Run("429 and 503 for a while", func(t *testing.T) {
		ref := fresh("b")
		b.reg.SetFaults(imagetest.Times(2, imagetest.Status(http.StatusTooManyRequests, "slow down", "Retry-After", "0")),
			imagetest.On("/blobs/", imagetest.Times(2, imagetest.Status(http.StatusServiceUnavailable, "try later"))))
		whole(ref)
	})
	t.Run("429 storm", func(t *testing.T) {
		ref := fresh("c")
		b.reg.SetFaults(imagetest.Status(http.StatusTooManyRequests, "toomanyrequests: You have reached your pull rate limit."))
		b.reg.Requests()
		b.fails(ref, nil, image.ErrUnreachable, "429", "pull rate limit")
		if n := len(b.reg.Requests()); n > 10 {
			t.Errorf("%d requests against a registry that says stop", n)
		}
	})
	t.Run("redirect loop", func(t *testing.T) {
		b.reg.SetFaults(imagetest.Redirect(b.srv.URL))
		b.reg.Requests()
		b.fails("c:1", nil, nil, "redirect")
		if n := len(b.reg.Requests()); n > 20 {
			t.Errorf("%d requests in a redirect loop", n)
		}
	})
	t.Run("reset before the first byte", func(t *testing.T) {
		b.reg.SetFaults(imagetest.On("/blobs/", imagetest.Cut(0)))
		b.fails("c:1", nil, image.ErrUnreachable)
	})
}

func TestHostile_IM17_Slow(t *testing.T) {
	b := newBench(t)
	b.store.Close()
	cfg := b.config()
	cfg.Registry = registry.Config{Backoff: time.Millisecond, Retries: 1, ProgressTimeout: 100 * time.Millisecond}
	var err error
	if b.store, err = image.Open(cfg); err != nil {
		t.Fatal(err)
	}
	img, err := tiny(random(200_000))
	b.add("x:1", img, err)
	for name, f := range map[string]imagetest.Fault{"trickle": imagetest.Trickle(1, 10*time.Millisecond), "hang": imagetest.Cut(1 << 40)} {
		if name == "hang" {
			f = imagetest.Trickle(1, time.Hour)
		}
		b.reg.SetFaults(imagetest.On("/blobs/", f))
		b.fails("x:1", nil, registry.ErrStalled)
		b.reg.SetFaults(imagetest.On("/manifests/", f))
		b.fails("x:1", nil, registry.ErrStalled)
	}
	// Cancelling ends a pull that hangs.
	b.reg.SetFaults(imagetest.Hang())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := b.store.Pull(ctx, "x:1", nil)
		done <- err
	}()
	for len(b.reg.Requests()) == 0 {
		time.Sleep(time.Millisecond) // until the request is out
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled pull: %v", err)
	}
}

func TestHostile_IM18(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	b.add("x:1", img, err)
	tlsrv := httptest.NewUnstartedServer(b.reg)
	tlsrv.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsrv.StartTLS()
	t.Cleanup(tlsrv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tlsrv.Certificate().Raw}), 0o644)
	hosts := func(text string) {
		os.WriteFile(filepath.Join(b.certs, "docker.io", "hosts.toml"), []byte(text), 0o644)
	}
	hosts(fmt.Sprintf("server = %q\n", tlsrv.URL))
	b.fails("x:1", nil, image.ErrUnreachable, "certificate")
	hosts(fmt.Sprintf("server = %q\n", strings.Replace(b.srv.URL, "http:", "https:", 1)))
	b.fails("x:1", nil, image.ErrUnreachable)
	hosts(fmt.Sprintf("server = %q\nca = %q\n", tlsrv.URL, ca))
	b.pull("x:1")
	b.store.Remove(t.Context(), "x:1")
	hosts(fmt.Sprintf("server = %q\nskip_verify = true\n", tlsrv.URL))
	b.pull("x:1")
	// TLS that redirects to plain HTTP is no better than plain HTTP.
	b.store.Remove(t.Context(), "x:1")
	b.reg.SetFaults(imagetest.On("/manifests/", func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		return r.TLS != nil && imagetest.Redirect(b.srv.URL)(w, r, next)
	}))
	b.fails("x:1", nil, nil, "redirect from https")
	// A client certificate is shown to the host that it is for.
	b.reg.SetFaults()
	mtls := httptest.NewUnstartedServer(b.reg)
	mtls.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	mtls.Config.ErrorLog = log.New(io.Discard, "", 0)
	mtls.StartTLS()
	t.Cleanup(mtls.Close)
	hosts(fmt.Sprintf("server = %q\nskip_verify = true\n", mtls.URL))
	b.fails("x:1", nil, image.ErrUnreachable)
	pair := clientPair(t)
	hosts(fmt.Sprintf("server = %q\nskip_verify = true\nclient = [[%q, %q]]\n", mtls.URL, pair[0], pair[1]))
	b.pull("x:1")
}

func TestHostile_IM19(t *testing.T) {
	b := newBench(t)
	img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{
		imagetest.Files(map[string]string{"a": random(2 << 20)}), imagetest.Files(map[string]string{"b": random(1 << 20)})}})
	b.add("x:1", img, err)
	b.add("y:1", img, err)
	b.reg.Requests()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ref := []string{"x:1", "y:1", "registry.k8s.io/library/x:1"}[i%3]
			if i%3 == 2 {
				ref = "docker.io/library/x:1"
			}
			if _, err := b.store.Pull(t.Context(), ref, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	blobs := map[string]int{}
	for _, r := range b.reg.Requests() {
		if strings.Contains(r.Path, "/blobs/") {
			blobs[filepath.Base(r.Path)]++
		}
	}
	layers, _ := img.Layers()
	for _, l := range layers {
		d, _ := l.Digest()
		if blobs[d.String()] != 1 {
			t.Errorf("layer %s was downloaded %d times", d, blobs[d.String()])
		}
	}
	if ds, _ := filepath.Glob(filepath.Join(b.root, "layers/*")); len(ds) != 2 {
		t.Errorf("layer directories: %q, want 2", ds)
	}
}

func TestHostile_IM34(t *testing.T) {
	b := newBench(t)
	img, err := tiny("x")
	b.add("good:1", img, err)
	raw, _ := img.RawManifest()
	for _, mt := range []string{"application/vnd.erofs.layer.v1", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+encrypted", "", "application/octet-stream"} {
		doc := bytes.ReplaceAll(raw, []byte(types.OCILayer), []byte(mt))
		b.reg.AddDocument("bad:1", string(types.OCIManifestSchema1), doc)
		b.fails("bad:1", nil, image.ErrUnsupported, mt)
	}
	artifact := bytes.Replace(raw, []byte(types.OCIConfigJSON), []byte("application/vnd.cncf.helm.config.v1+json"), 1)
	b.reg.AddDocument("bad:1", string(types.OCIManifestSchema1), artifact)
	b.fails("bad:1", nil, image.ErrUnsupported, "helm")
}

func TestHostile_IM38(t *testing.T) {
	b := newBench(t)
	build := func(arch string) v1.Image {
		img, err := imagetest.Build(imagetest.Spec{Arch: arch, Layers: []imagetest.Layer{imagetest.Files(map[string]string{"arch": arch})}})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	host, _ := tiny("right")
	cf, _ := host.ConfigFile()
	here := cf.Architecture
	b.reg.AddIndex("only-s390x:1", []v1.Platform{{OS: "linux", Architecture: "s390x"}, {OS: "windows", Architecture: here}},
		[]v1.Image{build("s390x"), build(here)})
	b.fails("only-s390x:1", nil, image.ErrPlatform, "linux/s390x", "windows/")
	img := build("s390x")
	b.add("single:1", img, nil)
	b.fails("single:1", nil, image.ErrPlatform, "s390x")
	b.reg.AddIndex("mixed:1", []v1.Platform{{OS: "unknown", Architecture: "unknown"}, {OS: "linux", Architecture: "s390x"}, {OS: "linux", Architecture: here}},
		[]v1.Image{build("unknown"), build("s390x"), host})
	got := b.pull("mixed:1")
	want, _ := host.ConfigName()
	if got.ID != want.String() {
		t.Errorf("chose %s, want %s", got.ID, want)
	}
}
