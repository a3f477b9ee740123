// Command keelson-pack makes, at build time, the one file of programs that keelson carries: a tar, zstd-compressed as a
// whole, because what Go programs have in common is then kept once.
//
//	keelson-pack FILE PROGRAM...
package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: keelson-pack FILE PROGRAM...")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "keelson-pack:", err)
		os.Exit(1)
	}
}

func pack(path string, programs []string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := compressor(f)
	if err != nil {
		return err
	}
	w := tar.NewWriter(z)
	for _, program := range programs {
		if err := add(w, program); err != nil {
			return fmt.Errorf("pack %s: %w", program, err)
		}
	}
	return errors.Join(w.Close(), z.Close())
}

// compressor is the program zstd at its best, which saves a tenth, or the library where there is none. One thread and no times: the
// same programs give the same bytes.
func compressor(to *os.File) (io.WriteCloser, error) {
	path, err := exec.LookPath("zstd")
	if err != nil {
		return zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(16<<20), zstd.WithEncoderConcurrency(1))
	}
	cmd := exec.Command(path, "--ultra", "-22", "--long=24", "--single-thread", "-c")
	cmd.Stdout, cmd.Stderr = to, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return program{in, cmd}, cmd.Start()
}

// program is a running one's input; Close waits for its end.
type program struct {
	io.WriteCloser
	cmd *exec.Cmd
}

func (p program) Close() error { return errors.Join(p.WriteCloser.Close(), p.cmd.Wait()) }

func add(w *tar.Writer, program string) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: filepath.Base(program), Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
