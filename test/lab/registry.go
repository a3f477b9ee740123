package lab

import (
	"fmt"
	"net"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"keelson.dev/keelson/image/imagetest"
)

// mirrored are the registries whose names the lessons' images have.
var mirrored = []string{"docker.io", "registry.k8s.io"}

// Registry serves the lessons' images under their original names, over HTTP on loopback.
type Registry struct {
	URL    string
	images *imagetest.Registry
	server *http.Server
	done   chan struct{}
}

// StartRegistry builds the images and serves them.
func StartRegistry() (*Registry, error) {
	handler := imagetest.NewRegistry()
	nginx, err := imagetest.Nginx(80)
	if err != nil {
		return nil, fmt.Errorf("make the nginx image: %w", err)
	}
	busybox, err := imagetest.Busybox()
	if err != nil {
		return nil, fmt.Errorf("make the busybox image: %w", err)
	}
	for name, image := range map[string]v1.Image{
		"docker.io/library/nginx:1.14.1": nginx, "docker.io/library/nginx:1.14.2": nginx, "registry.k8s.io/nginx-slim:0.8": nginx,
		"registry.k8s.io/test-webserver:latest": nginx, "docker.io/library/busybox:1.28": busybox, "docker.io/fluent/fluentd:latest": nginx,
	} {
		if _, err := handler.Add(name, image); err != nil {
			return nil, fmt.Errorf("serve %s: %w", name, err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Registry{URL: "http://" + listener.Addr().String(), images: handler, server: &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}, done: make(chan struct{})}
	go func() { // ended by Close
		_ = r.server.Serve(listener)
		close(r.done)
	}()
	return r, nil
}

// Add serves one more image.
func (r *Registry) Add(name string, image v1.Image) error {
	_, err := r.images.Add(name, image)
	return err
}

// Mirror makes an instance pull the images' original names from this registry.
func (r *Registry) Mirror(certsDir string) error {
	return imagetest.WriteHosts(certsDir, r.URL, mirrored...)
}

// Close ends the registry.
func (r *Registry) Close() error {
	err := r.server.Close()
	<-r.done
	return err
}
