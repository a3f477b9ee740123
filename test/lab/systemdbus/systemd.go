package systemdbus

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"keelson.dev/keelson/runtime/cgroup"
)

// Manager is the model. Start it; it ends with the test.
type Manager struct {
	conn *dbus.Conn

	mu    sync.Mutex
	units map[string]*unit
	jobs  uint32
}

type unit struct {
	path  string // of its cgroup
	props map[string]dbus.Variant
}

// property is one of a(sv).
type property struct {
	Name  string
	Value dbus.Variant
}

const (
	service = "org.freedesktop.systemd1"
	object  = dbus.ObjectPath("/org/freedesktop/systemd1")
	manager = "org.freedesktop.systemd1.Manager"
)

// Start runs a bus and the model on it, and points this process and those that
// it starts to them. It skips the test where there is no dbus-daemon, or where
// the machine has cgroup v2 alone.
func Start(t *testing.T) *Manager {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("needs dbus-daemon: ", err)
	}
	h, err := cgroup.Detect()
	if err != nil || h.Unified() {
		t.Skipf("needs cgroup v1 hierarchies, which the model writes to: %v, %v", h.Mode, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes cgroups")
	}
	address := startBus(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m := &Manager{conn: conn, units: map[string]*unit{}}
	for face, v := range map[string]any{manager: calls{m}, "org.freedesktop.DBus.Properties": properties{}} {
		if err := conn.Export(v, object, face); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := conn.RequestName(service, dbus.NameFlagDoNotQueue); err != nil || got != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("take the name %s: %v, %v", service, got, err)
	}
	return m
}

func startBus(t *testing.T) (address string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "keelson-bus-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "bus")
	config := fmt.Sprintf(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`, socket)
	file := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	bus := exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--config-file="+file)
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = bus.Process.Kill()
		_ = bus.Wait()
	})
	for range 1500 {
		if conn, err := dbus.Connect("unix:path=" + socket); err == nil {
			_ = conn.Close()
			return "unix:path=" + socket
		}
		time.Sleep(20 * time.Millisecond) // the bus tells nobody that it listens
	}
	t.Fatal("dbus-daemon does not listen")
	return ""
}

// Units are the names of those that there are.
func (m *Manager) Units() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.units))
}

// Property is a unit's; nil if it was not set.
func (m *Manager) Property(name, property string) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.units[name]; u != nil {
		return u.props[property].Value()
	}
	return nil
}

// Reload writes every unit's attributes anew, as `systemctl daemon-reload` may.
func (m *Manager) Reload() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.units {
		if err := u.realize(); err != nil {
			return err
		}
	}
	return nil
}

// hierarchies are those that systemd manages on v1.
func hierarchies() (dirs []string) {
	h, err := cgroup.Detect()
	if err != nil {
		return nil
	}
	for _, c := range []string{"cpu", "cpuacct", "memory", "blkio", "pids", "devices", "name=systemd"} {
		if dir := h.Mounts[c]; dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// realize makes the unit's cgroup and sets its attributes: those that no
// property names to systemd's defaults.
func (u *unit) realize() error {
	number := func(property, none string) string {
		if v, ok := u.props[property].Value().(uint64); ok && v != 1<<64-1 {
			return strconv.FormatUint(v, 10)
		}
		return none
	}
	values := map[string]string{"memory.limit_in_bytes": number("MemoryLimit", "-1"), "cpu.shares": number("CPUShares", "1024"), "pids.max": number("TasksMax", "max")}
	if _, named := u.props["DevicePolicy"]; !named {
		values["devices.allow"] = "a"
	}
	for _, root := range hierarchies() {
		dir := filepath.Join(root, u.path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for file, value := range values {
			if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
				continue // of another hierarchy
			}
			err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
			// The kernel refuses to change the devices of a group that has others below.
			if err != nil && !(file == "devices.allow" && errors.Is(err, syscall.EINVAL)) {
				return fmt.Errorf("%s of %s: %w", file, u.path, err)
			}
		}
	}
	return nil
}

func (u *unit) attach(pid uint32) error {
	for _, root := range hierarchies() {
		if err := os.WriteFile(filepath.Join(root, u.path, "cgroup.procs"), []byte(fmt.Sprint(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// calls are org.freedesktop.systemd1.Manager.
type calls struct{ m *Manager }

func failure(name string, format string, args ...any) *dbus.Error {
	return dbus.NewError(service+"."+name, []any{fmt.Sprintf(format, args...)})
}

// finish emits the job's end, once its call has been answered.
func (c calls) finish(name string) dbus.ObjectPath {
	c.m.jobs++
	id := c.m.jobs
	job := dbus.ObjectPath(fmt.Sprintf("%s/job/%d", object, id))
	time.AfterFunc(5*time.Millisecond, func() { _ = c.m.conn.Emit(object, manager+".JobRemoved", id, job, name, "done") })
	return job
}

// StartTransientUnit makes a slice or a scope.
func (c calls) StartTransientUnit(name, _ string, props []property, _ []struct {
	Name  string
	Props []property
}) (dbus.ObjectPath, *dbus.Error) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.units[name] != nil {
		return "", failure("UnitExists", "Unit %s already exists.", name)
	}
	u := &unit{props: map[string]dbus.Variant{}}
	for _, p := range props {
		u.props[p.Name] = p.Value
	}
	above := name
	pids, _ := u.props["PIDs"].Value().([]uint32)
	if strings.HasSuffix(name, ".scope") {
		above, _ = u.props["Slice"].Value().(string)
		if len(pids) == 0 {
			return "", failure("BadUnitSetting", "Scope %s has no PIDs. Refusing.", name)
		}
	}
	at, err := cgroup.SlicePath(above)
	if err != nil {
		return "", failure("InvalidArgs", "%v", err)
	}
	u.path = at
	if above != name {
		u.path = path.Join(at, name)
	}
	if err := u.realize(); err != nil {
		return "", failure("Failed", "%v", err)
	}
	for _, pid := range pids {
		if err := u.attach(pid); err != nil {
			return "", failure("Failed", "%v", err)
		}
	}
	c.m.units[name] = u
	return c.finish(name), nil
}

// StopUnit removes a unit, whose processes have ended.
func (c calls) StopUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	u := c.m.units[name]
	if u == nil {
		return "", failure("NoSuchUnit", "Unit %s not loaded.", name)
	}
	for _, root := range hierarchies() {
		_ = os.Remove(filepath.Join(root, u.path)) // others' cgroups in it keep it
	}
	delete(c.m.units, name)
	return c.finish(name), nil
}

// SetUnitProperties changes limits.
func (c calls) SetUnitProperties(name string, _ bool, props []property) *dbus.Error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	u := c.m.units[name]
	if u == nil {
		return failure("NoSuchUnit", "Unit %s not loaded.", name)
	}
	for _, p := range props {
		u.props[p.Name] = p.Value
	}
	if err := u.realize(); err != nil {
		return failure("Failed", "%v", err)
	}
	return nil
}

// ResetFailedUnit has nothing to do: none fails here.
func (calls) ResetFailedUnit(string) *dbus.Error { return nil }

// Subscribe has nothing to do: signals are sent in any case.
func (calls) Subscribe() *dbus.Error { return nil }

// properties are the manager's.
type properties struct{}

// Get knows the version, which callers decide by.
func (properties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	if name != "Version" {
		return dbus.Variant{}, failure("UnknownProperty", "%s", name)
	}
	return dbus.MakeVariant("252.39-1"), nil
}
