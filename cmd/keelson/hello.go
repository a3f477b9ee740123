package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"keelson.dev/keelson/image"
)

// helloImage is the first pod's image: every node has it without a registry.
const helloImage = "keelson.dev/hello:v1"

// loadHello puts the first pod's image into the store, if it is not there.
func loadHello(ctx context.Context, store *image.Store) error {
	if _, err := store.Get(helloImage); err == nil || !errors.Is(err, image.ErrNotFound) {
		return err
	}
	program, err := embedded(helloFile)
	if err != nil {
		return err
	}
	archive, err := helloArchive(program)
	if err != nil {
		return fmt.Errorf("make the image %s: %w", helloImage, err)
	}
	_, err = store.Import(ctx, archive)
	return err
}

// helloArchive wraps a static program as an image archive.
func helloArchive(program []byte) (io.Reader, error) {
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: "hello", Mode: 0o755, Size: int64(len(program)), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: []string{"/hello"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, err
	}
	tag, err := name.NewTag(helloImage)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	return &archive, tarball.Write(tag, img, &archive)
}
