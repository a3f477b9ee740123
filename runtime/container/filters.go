package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/engine/native"
	"keelson.dev/keelson/runtime/keeper"
)

// filters are compiled seccomp profiles, by the hash of the profile: in a
// directory, and in memory as far as they were used. A node has a handful.
type filters struct {
	dir  string
	link *link

	mu   sync.Mutex
	code map[string]*compiled
}

// compiled is a filter, once done is closed.
type compiled struct {
	done chan struct{}
	code []byte
	err  error
}

// of finds or compiles the filter of a profile.
func (f *filters) of(ctx context.Context, profile *specs.LinuxSeccomp) (string, native.Filter, error) {
	text, err := json.Marshal(profile)
	if err != nil {
		return "", native.Filter{}, fmt.Errorf("seccomp profile: %w", err)
	}
	flags, err := filterFlags(profile)
	if err != nil {
		return "", native.Filter{}, err
	}
	sum := sha256.Sum256(text)
	name := hex.EncodeToString(sum[:])
	code, err := f.get(ctx, name, text)
	return name, native.Filter{Program: code, Flags: flags}, err
}

// load finds a filter that was compiled before.
func (f *filters) load(ctx context.Context, name string, flags uint64) (native.Filter, error) {
	code, err := f.get(ctx, name, nil)
	return native.Filter{Program: code, Flags: flags}, err
}

// get has a filter made once, however many ask. A failure is not kept.
func (f *filters) get(ctx context.Context, name string, profile []byte) ([]byte, error) {
	f.mu.Lock()
	c, ok := f.code[name]
	if !ok {
		c = &compiled{done: make(chan struct{})}
		f.code[name] = c
	}
	f.mu.Unlock()
	if !ok {
		c.code, c.err = f.make(ctx, name, profile)
		if c.err != nil {
			f.mu.Lock()
			delete(f.code, name)
			f.mu.Unlock()
		}
		close(c.done)
	}
	select {
	case <-c.done:
		return c.code, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (f *filters) make(ctx context.Context, name string, profile []byte) ([]byte, error) {
	path := filepath.Join(f.dir, name+".bpf")
	code, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return code, err
	}
	if profile == nil {
		return nil, fmt.Errorf("seccomp filter %s is gone: %w", name, os.ErrNotExist)
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	source := filepath.Join(f.dir, name+".json")
	if err := os.WriteFile(source, profile, 0o600); err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	defer os.Remove(source)
	if err := f.link.ask(ctx, keeper.OpSeccomp, keeper.Seccomp{Profile: source, Filter: path}, nil); err != nil {
		return nil, &specError{fmt.Errorf("seccomp filter: %w", err)}
	}
	return os.ReadFile(path)
}

// filterFlags are those of seccomp(2).
func filterFlags(profile *specs.LinuxSeccomp) (uint64, error) {
	var flags uint64
	for _, name := range profile.Flags {
		switch name {
		case "SECCOMP_FILTER_FLAG_TSYNC": // one thread has nobody to bring along
		case specs.LinuxSeccompFlagLog:
			flags |= 1 << 1
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= 1 << 2
		default:
			return 0, &specError{fmt.Errorf("seccomp flag %q is not supported", name)}
		}
	}
	return flags, nil
}
