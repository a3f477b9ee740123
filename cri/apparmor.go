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

// appArmorLoaded lists the kernel's profiles, a line "name (mode)" each.
const appArmorLoaded = "/sys/kernel/security/apparmor/profiles"

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
		if there, err := profileLoaded(name); err == nil && !there {
			return "", invalid("AppArmor profile %q is not loaded on this host; load it with apparmor_parser", name)
		}
		return "", nil // without the list the start tells
	case runtimeapi.SecurityProfile_RuntimeDefault:
		return a.standard(ctx), nil
	}
	return "", nil
}

func profileLoaded(name string) (bool, error) {
	list, err := os.ReadFile(appArmorLoaded)
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
	there, err := profileLoaded(AppArmorProfile)
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
