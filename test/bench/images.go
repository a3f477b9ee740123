package main

import (
	"fmt"
	"net"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"keelson.dev/keelson/image/imagetest"
)

// The image of the pull rows.
const (
	largeSize   = 612_000_000
	largeLayers = 5
)

// images are served on loopback, where every runtime takes plain HTTP.
type images struct {
	busybox, pause string
	large          []largeImage
	server         *http.Server
	done           chan struct{}
}

type largeImage struct{ name, ref string }

func serveImages(large bool) (*images, error) {
	registry := imagetest.NewRegistry()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	host := listener.Addr().String()
	i := &images{busybox: host + "/bench/busybox:1", pause: host + "/bench/pause:1", server: &http.Server{Handler: registry, ReadHeaderTimeout: time.Minute},
		done: make(chan struct{})}
	busybox, err := imagetest.Busybox()
	if err != nil {
		return nil, fmt.Errorf("the bench image needs Debian's busybox-static: %w", err)
	}
	pause, err := imagetest.Busybox(v1.Config{Entrypoint: []string{"/bin/sleep", "1000000"}, Env: []string{"PATH=/bin"}})
	if err != nil {
		return nil, err
	}
	for ref, image := range map[string]v1.Image{i.busybox: busybox, i.pause: pause} {
		if _, err := registry.Add(ref, image); err != nil {
			return nil, err
		}
	}
	if large {
		layers := imagetest.Large(largeLayers, largeSize)
		for _, c := range []imagetest.Compression{imagetest.Gzip, imagetest.Zstd} {
			image, err := imagetest.Build(imagetest.Spec{Layers: layers, Compression: c})
			if err != nil {
				return nil, err
			}
			l := largeImage{string(c), fmt.Sprintf("%s/bench/large-%s:1", host, c)}
			if _, err := registry.Add(l.ref, image); err != nil {
				return nil, err
			}
			i.large = append(i.large, l)
		}
	}
	go func() { // ended by close
		_ = i.server.Serve(listener)
		close(i.done)
	}()
	return i, nil
}

func (i *images) close() error {
	err := i.server.Close()
	<-i.done
	return err
}
