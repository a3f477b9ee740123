package cri

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/translate"
)

// AppArmorProfile is the runtime's default profile, in every AppArmor profile
// list of a node where a container ran.
const AppArmorProfile = "keelson-default"

//go:embed apparmor.profile
var appArmorText []byte

// appArmorDir is the kernel's: profiles lists what is loaded, a line "name (mode)"
// each, and a name written to .remove is unloaded.
const appArmorDir = "/sys/kernel/security/apparmor"

// appArmorWait bounds apparmor_parser, which takes some 0.1 s.
const appArmorWait = 30 * time.Second

// appArmor looks after the default profile. It is loaded when the first
// container needs it, and again if somebody removed it (aa-remove-unknown does).
type appArmor struct {
	mu     sync.Mutex
	warned bool
	log    *slog.Logger
}

// choose checks that the profile of a container is there, and gives the default
// one's name for a container that gets it: "" where this host cannot have one.
func (a *appArmor) choose(ctx context.Context, sc *runtimeapi.LinuxContainerSecurityContext) (string, error) {
	name, kind, err := translate.AppArmor(sc)
	if err != nil {
		return "", err
	}
	switch kind {
	case runtimeapi.SecurityProfile_Localhost:
		if there, err := profileLoaded(appArmorDir, name); err == nil && !there {
			return "", invalid("AppArmor profile %q is not loaded on this host; load it with apparmor_parser", name)
		}
		return "", nil // without the list the start tells
	case runtimeapi.SecurityProfile_RuntimeDefault:
		return a.standard(ctx), nil
	}
	return "", nil
}

func profileLoaded(dir, name string) (bool, error) {
	list, err := os.ReadFile(filepath.Join(dir, "profiles"))
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(strings.Split(string(list), "\n"), func(line string) bool {
		at := strings.LastIndex(line, " (")
		return at > 0 && line[:at] == name
	}), nil
}

// standard makes sure of the default profile. A host that lets nobody load one
// (a container, or no apparmor_parser) has none: the default asks for what there
// is.
func (a *appArmor) standard(ctx context.Context) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	there, err := profileLoaded(appArmorDir, AppArmorProfile)
	if err == nil && !there {
		err = loadProfile(ctx)
	}
	if err == nil {
		return AppArmorProfile
	}
	if !a.warned && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("containers have no AppArmor profile unless they name one", "err", err)
		a.warned = true
	}
	return ""
}

func loadProfile(ctx context.Context) error {
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		return errors.New("the kernel has AppArmor, but there is no apparmor_parser to load the default profile with: install the package apparmor")
	}
	ctx, cancel := context.WithTimeout(ctx, appArmorWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, parser, "--replace", "--skip-cache", "--quiet")
	cmd.Stdin = bytes.NewReader(appArmorText)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load AppArmor profile %s: %w: %.300s", AppArmorProfile, err, bytes.TrimSpace(out))
	}
	return nil
}

// UnloadAppArmor takes the default profile out of the kernel, unless a process
// has it: one of another runtime like this on the host.
func UnloadAppArmor() error { return unloadAppArmor(appArmorDir, "/proc") }

func unloadAppArmor(dir, proc string) error {
	if there, err := profileLoaded(dir, AppArmorProfile); err != nil || !there {
		return nil // without AppArmor there is no list
	}
	labels, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "attr", "current"))
	if err != nil {
		return err
	}
	for _, path := range labels {
		if label, err := os.ReadFile(path); err == nil && bytes.HasPrefix(label, []byte(AppArmorProfile+" (")) {
			return nil
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, ".remove"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("unload AppArmor profile %s: %w", AppArmorProfile, err)
	}
	_, err = f.WriteString(AppArmorProfile)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("unload AppArmor profile %s: %w", AppArmorProfile, err)
	}
	return nil
}
