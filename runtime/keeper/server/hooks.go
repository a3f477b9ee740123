package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/bundle"
)

// hookPatience is how long a hook may run that names no timeout of its own:
// nothing waits for it, but nobody may leave processes behind for good.
const hookPatience = 30 * time.Second

// poststop gives what runs the hooks that the container's spec has for its end
// (OCI runtime spec, "Poststop"), nil if there are none. The bundle is read at
// once: it goes when the end is known. The other hooks are the engine's.
func (b *box) poststop(log func(msg string, args ...any)) func() {
	if !b.hooked {
		return nil
	}
	spec, err := bundle.ReadSpec(b.run.Dir)
	if err != nil || spec.Hooks == nil {
		log("poststop hooks are lost", "container", b.run.ID, "err", err)
		return nil
	}
	state := specs.State{Version: spec.Version, ID: b.run.ID, Status: specs.StateStopped, Bundle: b.run.Dir, Annotations: spec.Annotations}
	return func() {
		for _, h := range spec.Hooks.Poststop {
			if err := runHook(h, state); err != nil {
				log("poststop hook", "container", b.run.ID, "err", err)
			}
		}
	}
}

func runHook(h specs.Hook, state specs.State) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("hook %s: %w", h.Path, err)
	}
	patience := hookPatience
	if h.Timeout != nil {
		patience = time.Duration(*h.Timeout) * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env, cmd.Stdin = h.Args, h.Env, bytes.NewReader(text)
	cmd.WaitDelay = time.Second // a child of its own may keep the output open
	if len(h.Args) == 0 {
		cmd.Args = []string{h.Path}
	}
	if h.Env == nil {
		cmd.Env = []string{} // nil would be ours
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("hook %s: %w: %.200s", h.Path, err, out)
	}
	return nil
}
