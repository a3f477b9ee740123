package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Names in a run directory.
const (
	SpecName   = "config.json"
	StdinName  = "stdin"
	StdoutName = "stdout"
	StderrName = "stderr"
	InitName   = "init.json"
	ExitName   = "exit.json"
	EngineName = "engine"
	// ProgramName is the native engine's image; without one the container is
	// libcontainer's.
	ProgramName = "program"
)

// Make makes the run directory with the spec and the FIFOs that the container
// needs (none for a terminal). What a half-finished Make left is replaced.
func Make(dir string, spec *specs.Spec, tty, stdin bool) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if err := WriteJSON(filepath.Join(dir, SpecName), spec); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if tty {
		return nil
	}
	names := []string{StdoutName, StderrName}
	if stdin {
		names = append(names, StdinName)
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make bundle: mkfifo %s: %w", path, err)
		}
		if err := label(path, spec); err != nil {
			return fmt.Errorf("make bundle: label %s: %w", path, err)
		}
	}
	return nil
}

// label gives a FIFO the SELinux label of the container's files: an enforcing
// policy keeps what it inherits from it otherwise.
func label(path string, spec *specs.Spec) error {
	if spec.Linux == nil || spec.Linux.MountLabel == "" {
		return nil
	}
	err := unix.Lsetxattr(path, "security.selinux", []byte(spec.Linux.MountLabel), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// ReadSpec reads the spec of a run directory.
func ReadSpec(dir string) (*specs.Spec, error) {
	spec := &specs.Spec{}
	if err := ReadJSON(filepath.Join(dir, SpecName), spec); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return spec, nil
}

// WriteJSON replaces the file at path: readers see the old text or the new.
func WriteJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// ReadJSON reads a file that WriteJSON wrote.
func ReadJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}
