package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/engine/native"
)

// nativeName is the file that says that a container was started by the native
// engine, and what is needed to enter it.
const nativeName = "native.json"

// nativeRecord is native.json.
type nativeRecord struct {
	Filter string `json:"filter,omitempty"` // name of its seccomp filter
	Flags  uint64 `json:"flags,omitempty"`
	Rootfs string `json:"rootfs"`
	OOM    *int   `json:"oomScoreAdj,omitempty"`
}

// prepareNative compiles the container's program and makes its cgroup, for the
// keeper to run. It does nothing for a container that the native engine does
// not support: without a program, libcontainer starts it.
func (m *Manager) prepareNative(ctx context.Context, c *container, r record) error {
	if !m.useNative {
		return nil
	}
	spec, err := c.takeSpec()
	if err != nil {
		return err
	}
	if err := native.Supported(spec); err != nil {
		m.cfg.Log.Debug("started by libcontainer", "container", c.id, "why", err)
		return nil
	}
	info := nativeRecord{Rootfs: spec.Root.Path}
	var filter native.Filter
	if spec.Linux.Seccomp != nil {
		if info.Filter, filter, err = m.filters.of(ctx, spec.Linux.Seccomp); err != nil {
			return err
		}
		info.Flags = filter.Flags
	}
	for _, change := range bundle.Clamp(spec.Process, m.limits) {
		m.cfg.Log.Info("clamped to what this process may give", "container", c.id, "change", change)
	}
	info.OOM = spec.Process.OOMScoreAdj
	program, err := native.Compile(spec, filter, r.Stdin, m.host(info.Rootfs))
	if errors.Is(err, native.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return &specError{err}
	}
	group := m.groupOf(r)
	if err := group.Create(spec.Linux.Resources); err != nil {
		return &specError{err}
	}
	var rules []specs.LinuxDeviceCgroup
	if spec.Linux.Resources != nil {
		rules = spec.Linux.Resources.Devices
	}
	if err := group.AllowDevices(rules); err != nil {
		return &specError{err}
	}
	if err := bundle.WriteJSON(filepath.Join(c.dir, nativeName), info); err != nil {
		return err
	}
	c.setNative(&info)
	return os.WriteFile(filepath.Join(c.dir, bundle.ProgramName), program, 0o600)
}

// specError is the container's own fault.
type specError struct{ err error }

func (e *specError) Error() string { return e.err.Error() }
func (e *specError) Unwrap() error { return e.err }

// takeSpec is the container's spec: as Create got it, or from the bundle.
func (c *container) takeSpec() (*specs.Spec, error) {
	c.mu.Lock()
	spec := c.spec
	c.spec = nil
	c.mu.Unlock()
	if spec != nil {
		return spec, nil
	}
	return bundle.ReadSpec(c.dir)
}

func (c *container) setNative(info *nativeRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.native = info
}

// nativeInfo is what was kept when the native engine started the container;
// nil if it did not.
func (c *container) nativeInfo() (*nativeRecord, error) {
	c.mu.Lock()
	info := c.native
	c.mu.Unlock()
	if info != nil {
		return info, nil
	}
	info = &nativeRecord{}
	err := bundle.ReadJSON(filepath.Join(c.dir, nativeName), info)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.setNative(info)
	return info, nil
}

// execImage is the program that starts p in the container; nil if libcontainer
// started that and so must start this.
func (m *Manager) execImage(ctx context.Context, c *container, p *specs.Process, stdin bool) ([]byte, error) {
	info, err := c.nativeInfo()
	if info == nil || err != nil {
		return nil, err
	}
	entry := native.Entry{Cgroup: c.record().Cgroup, Stdin: stdin}
	if info.Filter != "" {
		if entry.Filter, err = m.filters.load(ctx, info.Filter, info.Flags); err != nil {
			return nil, err
		}
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = info.OOM // as the container it works in
	}
	bundle.Clamp(p, m.limits)
	return native.CompileExec(p, entry, m.host(info.Rootfs))
}

// host is what the native engine must know of this machine and of a
// container's root.
func (m *Manager) host(rootfs string) native.Host {
	return native.Host{
		Groups: m.groups, LastCap: m.lastCap, Permitted: m.limits.Permitted,
		IsDir: isDir,
		Home:  func(uid uint32) string { return homeOf(rootfs, uid) },
	}
}

func isDir(path string) (bool, error) {
	st, err := os.Stat(path)
	return err == nil && st.IsDir(), err
}

// homeOf looks a user's home up in the container's /etc/passwd, which is read
// without leaving the root.
func homeOf(rootfs string, uid uint32) string {
	const fallback = "/"
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return fallback
	}
	defer root.Close()
	f, err := root.Open("etc/passwd")
	if err != nil {
		return fallback
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fallback
	}
	want := strconv.FormatUint(uint64(uid), 10)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if field := strings.Split(lines.Text(), ":"); len(field) >= 6 && field[2] == want && field[5] != "" {
			return field[5]
		}
	}
	return fallback
}

// lastCap is the kernel's last capability.
func lastCap() (uint, error) {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, fmt.Errorf("last capability: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 6)
	if err != nil {
		return 0, fmt.Errorf("last capability: %w", err)
	}
	return uint(n), nil
}

// nativeWorks says whether the kernel has what the native engine needs: Linux
// 5.12 for mount_setattr.
func nativeWorks() bool {
	var name unix.Utsname
	return unix.Uname(&name) == nil && atLeast(unix.ByteSliceToString(name.Release[:]), 5, 12)
}
