package imagetest

import (
	"archive/tar"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

//go:embed testdata/programs/*.go
var programs embed.FS

// GoProgram compiles one of testdata/programs ("pause", "nonewprivs", ...)
// statically; the same toolchain gives the same bytes. It needs go in PATH.
func GoProgram(ctx context.Context, name string) ([]byte, error) {
	src, err := programs.ReadFile("testdata/programs/" + name + ".go")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keelson-program-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file, out := filepath.Join(dir, name+".go"), filepath.Join(dir, name)
	if err := os.WriteFile(file, src, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, file)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile %s: %w: %s", name, err, text)
	}
	return os.ReadFile(out)
}

// CritestHosts are the registry hosts whose images Critest serves: for WriteHosts.
func CritestHosts() []string {
	return []string{"docker.io", "registry.k8s.io", "gcr.io", "k8s.gcr.io"}
}

const staging = "gcr.io/k8s-staging-cri-tools/"

// Critest serves every image that cri-tools' critest names, under its own name.
// busybox is a static busybox to put into them: Debian's own lacks applets and
// does not let a shell run /bin/ls, so some specs need one from busybox.sh; ""
// is Debian's. It returns the digest of test-image-digest, which critest must be
// built with to pass its pull by digest.
func Critest(ctx context.Context, g *Registry, busybox string) (digest string, err error) {
	c := critest{ctx: ctx, g: g}
	if c.base, err = BaseOf(orDefault(busybox)); err != nil {
		return "", err
	}
	if err := c.fillIn(); err != nil {
		return "", err
	}
	c.shell(nil, v1.Config{}, "registry.k8s.io/e2e-test-images/busybox:1.29-2")
	c.servers()
	c.programs()
	for name, user := range map[string]string{"uid": "1002", "username": "www-data", "uid-group": "1003:1004",
		"username-group": "www-data:1004", "predefined-group": "1000"} {
		ref := staging + "test-image-user-" + name + ":latest"
		if name == "predefined-group" {
			ref = staging + "test-image-predefined-group:latest"
		}
		c.shell(mark(name), v1.Config{User: user}, ref)
	}
	c.shell(mark("latest"), v1.Config{}, staging+"test-image-latest:latest")
	c.shell(mark("tag-test"), v1.Config{}, staging+"test-image-tag:test")
	c.shell(mark("tag-all"), v1.Config{}, staging+"test-image-tag:all")
	digest = c.shell(mark("digest"), v1.Config{}, staging+"test-image-digest:latest")
	for _, n := range []string{"1", "2", "3"} {
		c.shell(mark(n), v1.Config{}, staging+"test-image-"+n+":latest")
	}
	c.shell(mark("tags"), v1.Config{}, staging+"test-image-tags:1", staging+"test-image-tags:2", staging+"test-image-tags:3")
	return digest, c.err
}

func orDefault(busybox string) string { return or(busybox, busyboxPath) }

// critest collects the first error of many steps.
type critest struct {
	ctx  context.Context
	g    *Registry
	base Layer
	err  error
}

// mark is a layer that makes an image one of its own.
func mark(name string) Layer {
	return Layer{{Name: "etc/", Type: tar.TypeDir}, {Name: "etc/image", Data: []byte(name + "\n")}}
}

// fillIn adds programs for applets that the busybox lacks.
func (c *critest) fillIn() error {
	for _, n := range []string{"pgrep", "ipcs"} {
		if slices.ContainsFunc(c.base, func(e Entry) bool { return e.Name == "bin/"+n }) {
			continue
		}
		b, err := GoProgram(c.ctx, n)
		if err != nil {
			return err
		}
		c.base = append(c.base, Entry{Name: "bin/" + n, Mode: 0o755, Data: b})
	}
	return nil
}

// shell serves base, and extra over it, under refs.
func (c *critest) shell(extra Layer, cfg v1.Config, refs ...string) (digest string) {
	if cfg.Cmd == nil {
		cfg.Cmd = []string{"sh"}
	}
	cfg.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	layers := []Layer{c.base}
	if extra != nil {
		layers = append(layers, extra)
	}
	img, err := Build(Spec{Layers: layers, Config: cfg})
	return c.add(img, err, refs...)
}

func (c *critest) add(img v1.Image, err error, refs ...string) (digest string) {
	for _, r := range refs {
		if err == nil && c.err == nil {
			digest, err = c.g.Add(r, img)
		}
	}
	if c.err == nil && err != nil {
		c.err = fmt.Errorf("%s: %w", strings.Join(refs, ", "), err)
	}
	return digest
}

func (c *critest) servers() {
	img, err := nginx(c.base, 80)
	c.add(img, err, "registry.k8s.io/e2e-test-images/nginx:1.14-2")
	img, err = nginx(c.base, 12003)
	c.add(img, err, staging+"hostnet-nginx-"+hostArch+":latest", staging+"hostnet-nginx-amd64:latest")
	page := Files(map[string]string{"var/www/html/index.html": "<html><body><h1>It works!</h1></body></html>\n"})
	c.shell(page, v1.Config{Cmd: []string{"sh", "-c", "echo httpd: serving on port 80; exec httpd -f -p 80 -h /var/www/html"}},
		"registry.k8s.io/e2e-test-images/httpd:2.4.39-4")
}

func (c *critest) programs() {
	for name, refs := range map[string][]string{
		"nonewprivs": {"registry.k8s.io/e2e-test-images/nonewprivs:1.3"},
		"pause":      {"registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"},
	} {
		b, err := GoProgram(c.ctx, name)
		if err != nil {
			c.add(nil, err, refs...)
			continue
		}
		mode := int64(0o755)
		if name == "nonewprivs" {
			mode = 0o4755
		}
		img, err := Program(name, mode, b)
		c.add(img, err, refs...)
	}
	// The image of sandboxes must not be the pause that specs remove.
	if b, err := GoProgram(c.ctx, "pause"); err == nil {
		img, err := Build(Spec{Layers: []Layer{{{Name: "pause", Mode: 0o755, Data: b}, {Name: "sandbox", Data: []byte("x")}}}, Config: v1.Config{Entrypoint: []string{"/pause"}}})
		c.add(img, err, "registry.k8s.io/pause:3.10.2", "registry.k8s.io/pause:3.10.1", "registry.k8s.io/pause:3.10")
	}
}
