package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	busyboxImage = "docker.io/library/busybox:bench"
	pauseImage   = "registry.k8s.io/pause:bench" // the peer's sandboxes
)

// archive writes a docker archive with busybox under both names: what a runtime can import without a registry.
func archive(path string) error {
	binary, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		return fmt.Errorf("the bench image needs Debian's busybox-static: %w", err)
	}
	content, err := busyboxLayer(binary)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		return err
	}
	images := map[name.Tag]v1.Image{}
	for ref, entrypoint := range map[string][]string{busyboxImage: {"/bin/sh"}, pauseImage: {"/bin/sleep", "infinity"}} {
		image, err := mutate.AppendLayers(empty.Image, layer)
		if err != nil {
			return err
		}
		image, err = mutate.ConfigFile(image, &v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: mustRootFS(image),
			Config: v1.Config{Entrypoint: entrypoint, Env: []string{"PATH=/bin"}}})
		if err != nil {
			return err
		}
		tag, err := name.NewTag(ref)
		if err != nil {
			return err
		}
		images[tag] = image
	}
	return tarball.MultiWriteToFile(path, images)
}

func mustRootFS(image v1.Image) v1.RootFS {
	config, err := image.ConfigFile()
	if err != nil {
		panic(err) // an image in memory has a config
	}
	return config.RootFS
}

// busyboxLayer is /bin/busybox with a few names, hard-linked.
func busyboxLayer(binary []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	epoch := time.Unix(0, 0)
	for _, dir := range []string{"bin/", "tmp/", "etc/", "proc/", "sys/", "dev/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch}); err != nil {
			return nil, err
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(binary)), ModTime: epoch}); err != nil {
		return nil, err
	}
	if _, err := w.Write(binary); err != nil {
		return nil, err
	}
	for _, applet := range []string{"sh", "sleep", "true", "cat", "echo", "ls"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: "bin/" + applet, Linkname: "bin/busybox", Mode: 0o755, ModTime: epoch}); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}
