package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// files is filled by `make build`; a plain `go build` gives a binary without them, which says so when it needs them.
//
//go:embed embedded
var files embed.FS

const (
	keeperFile = "keelson-keeper"
	helloFile  = "keelson-hello"
)

// embedded returns a program that keelson-pack packed.
func embedded(name string) ([]byte, error) {
	packed, err := files.Open("embedded/programs.tar.zst")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not in this binary: build with `make build`", name)
	}
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("embedded %s: %w", name, err)
	}
	defer z.Close()
	for r := tar.NewReader(z); ; {
		header, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("embedded %s: %w", name, err)
		}
		if header.Name == name {
			return io.ReadAll(r)
		}
	}
}

// keeper writes the keeper out under its content's hash, so that a running keeper's file is never changed, and returns its path.
func keeper(p places) (string, error) {
	data, err := embedded(keeperFile)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	path := filepath.Join(p.agent(), "bin", keeperFile+"-"+hex.EncodeToString(sum[:8]))
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keeper-*")
	if err != nil {
		return "", err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(0o700), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return "", fmt.Errorf("write the keeper: %w", err)
	}
	return path, nil
}
