package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Geteuid() == 0 {
		runtimetest.RemoveKeeper()
	}
	os.Exit(code)
}

func newManager(t *testing.T) *Manager {
	t.Helper()
	runtimetest.Need(t)
	m, err := New(ManagerConfig{StateDir: t.TempDir(), KeeperPath: runtimetest.Keeper(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, s := range m.List() {
			if err := m.Remove(ctx, s.ID); err != nil {
				t.Errorf("cleanup: %v", err)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), m.cfg.StateDir) {
			t.Errorf("mounts left behind below %s (%v)", m.cfg.StateDir, err)
		}
	})
	return m
}

func testCgroup(t *testing.T) string {
	path := fmt.Sprintf("/keelson-test-%d-sb-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	t.Cleanup(func() {
		h, err := cgroup.Detect()
		if err == nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
			defer cancel()
			err = h.Group(path).Remove(ctx)
		}
		if err != nil {
			t.Errorf("cleanup: %v", err)
		}
	})
	return path
}

// in runs a command in the sandbox's namespaces.
func in(t *testing.T, s *Sandbox, command ...string) string {
	t.Helper()
	args := []string{}
	for kind, path := range s.Namespaces {
		switch kind {
		case specs.IPCNamespace:
			args = append(args, "--ipc="+path)
		case specs.UTSNamespace:
			args = append(args, "--uts="+path)
		case specs.PIDNamespace:
			args = append(args, "--pid="+path)
		}
	}
	out, err := exec.Command("nsenter", append(append(args, "--"), command...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("nsenter %v: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestCreateAndRemove(t *testing.T) {
	m := newManager(t)
	ctx := t.Context()
	limit := int64(64 << 20)
	cfg := Config{
		ID: "a", Hostname: "web-0", CgroupParent: testCgroup(t), ShmBytes: 1 << 20,
		Sysctls:   map[string]string{"kernel.shm_rmid_forced": "1", "kernel/msgmax": "4096"},
		Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}},
	}
	s, err := m.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := in(t, s, "hostname"); got != "web-0" {
		t.Errorf("host name %q", got)
	}
	if got := in(t, s, "cat", "/proc/sys/kernel/shm_rmid_forced", "/proc/sys/kernel/msgmax"); got != "1\n4096" {
		t.Errorf("sysctls %q", got)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.ShmPath, &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Blocks*uint64(st.Bsize) != 1<<20 {
		t.Errorf("shm: %+v, %v", st, err)
	}
	group := m.groups.Group(s.CgroupPath)
	if stats, err := group.Stats(true); err != nil || stats.Memory.Limit != uint64(limit) {
		t.Errorf("pod cgroup: %+v, %v", stats.Memory, err)
	}
	if _, err := m.Create(ctx, cfg); !errors.Is(err, ErrExists) {
		t.Errorf("second create: %v", err)
	}
	if got, err := m.Get("a"); err != nil || !got.Ready {
		t.Errorf("get: %+v, %v", got, err)
	}
	for range 2 {
		if err := m.Remove(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Get("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get after remove: %v", err)
	}
	if group.Exists() {
		t.Error("the pod's cgroup is left")
	}
	if host, err := os.Hostname(); err != nil || host == "web-0" {
		t.Errorf("this machine is called %q now (%v)", host, err)
	}
}

func TestSharedPIDNamespace(t *testing.T) {
	m := newManager(t)
	ctx := t.Context()
	s, err := m.Create(ctx, Config{ID: "p", HostUTS: true, SharedPID: true, CgroupParent: testCgroup(t)})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := firstProcess(s.Namespaces[specs.PIDNamespace])
	if err != nil || pid == 0 {
		t.Fatalf("first process %d, %v", pid, err)
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(comm) != "pause\n" {
		t.Errorf("first process is %q, %v", comm, err)
	}
	if root, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid)); err != nil || len(root) != 0 {
		t.Errorf("its root holds %v, %v", root, err)
	}
	// An orphan is reaped: after a double fork, nothing is left but pid 1.
	in(t, s, "sh", "-c", "(sh -c 'exit 3' & ) ; sleep 0.01")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(status), "CapEff:\t0000000000000000") || !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Errorf("first process has rights: %v\n%s", err, status)
	}
	child := exec.Command("nsenter", "--pid="+s.Namespaces[specs.PIDNamespace], "--", "sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Error("a process of the namespace survived its removal")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // it has ended; its parent may yet have to reap it
		if _, err := keeper.StartTicks(pid); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the first process survived")
		}
	}
}

func TestReopen(t *testing.T) {
	m := newManager(t)
	ctx := t.Context()
	if _, err := m.Create(ctx, Config{ID: "keep", Hostname: "h"}); err != nil {
		t.Fatal(err)
	}
	// What a killed Create leaves: its record, some pins.
	half := m.places("half")
	if err := os.MkdirAll(half.pins(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := pin("/proc/self/ns/ipc", half.pin("ipc")); err != nil {
		t.Fatal(err)
	}
	text := `{"ID":"half","Phase":"creating"}`
	if err := os.WriteFile(half.record(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := New(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.List(); len(got) != 1 || got[0].ID != "keep" || !got[0].Ready || got[0].Hostname != "h" {
		t.Errorf("after reopening: %+v", got)
	}
	if _, err := os.Stat(half.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half-made sandbox is left: %v", err)
	}
	// A pin that an administrator took away shows.
	if err := unmount(m.places("keep").pin("uts")); err != nil {
		t.Fatal(err)
	}
	if got, err := again.Get("keep"); err != nil || got.Ready {
		t.Errorf("with a pin gone: %+v, %v", got, err)
	}
}

func TestCreateFailsClean(t *testing.T) {
	m := newManager(t)
	for name, cfg := range map[string]Config{
		"no such netns": {ID: "x", NetNSPath: filepath.Join(t.TempDir(), "none")},
		"bad value":     {ID: "x", Sysctls: map[string]string{"kernel.sem": "nonsense"}},
		"bad id":        {ID: "../x"},
		"long name":     {ID: "x", Hostname: strings.Repeat("a", 65)},
	} {
		if _, err := m.Create(t.Context(), cfg); err == nil {
			t.Errorf("%s: created", name)
		}
		entries, err := os.ReadDir(m.cfg.StateDir)
		if err != nil || len(entries) != 0 {
			t.Errorf("%s: %v left, %v", name, entries, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Create(ctx, Config{ID: "x", CgroupParent: testCgroup(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestHostile_OC13(t *testing.T) {
	cfg := Config{NetNSPath: "/some"}
	for _, name := range []string{
		"kernel.shm_rmid_forced=1+kernel.core_pattern", "kernel.core_pattern", "kernel.shm_rmid_forced/../core_pattern",
		"kernel/../kernel/core_pattern", "vm.overcommit_memory", "kernel.shm_foo", "", ".", "/", "net", "net..", "net/../kernel/core_pattern",
		"kernel.msgmax\n", "fs.mqueue", "fs/mqueue/../file-max", "kernel.hostname",
	} {
		if path, err := cfg.sysctlPath(name); !errors.Is(err, ErrSysctl) {
			t.Errorf("%q is let through as %q (%v)", name, path, err)
		}
	}
	for name, want := range map[string]string{
		"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net/ipv4/conf/eth0.1/forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"net.ipv4.conf.eth0/1.forwarding": "net/ipv4/conf/eth0.1/forwarding", "kernel.msgmax": "kernel/msgmax", "fs.mqueue.msg_max": "fs/mqueue/msg_max",
	} {
		if path, err := cfg.sysctlPath(name); err != nil || path != want {
			t.Errorf("%q: %q, %v; want %q", name, path, err, want)
		}
	}
	for name, host := range map[string]Config{
		"net.ipv4.ip_forward": {}, "kernel.msgmax": {HostIPC: true}, "kernel.domainname": {HostUTS: true},
	} {
		if _, err := host.sysctlPath(name); !errors.Is(err, ErrSysctl) {
			t.Errorf("%q is let through to the host: %v", name, err)
		}
	}
}
