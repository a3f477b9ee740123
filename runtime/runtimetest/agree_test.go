package runtimetest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/container"
)

// probe says all that a process can see of how it was started.
const probe = `
echo "== status"; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask|SigIgn|SigBlk|SigCgt|NSpid|NSsid|NSpgid)' /proc/self/status
echo "== env"; env | sort
echo "== id"; id; pwd; hostname; umask; ulimit -a; cat /proc/self/oom_score_adj
echo "== dev"; ls -la /dev | awk '{print $1,$3,$4,$5,$6,$NF}' | grep -v '^total' | grep -v ' \.\.*$'
echo "== fds"; ls /proc/self/fd
echo "== cgroup"; cat /proc/self/cgroup
echo "== sys"; ls /sys/fs/cgroup 2>&1; (touch /sys/fs/cgroup/x) 2>&1; (echo 1 > /proc/sys/kernel/printk) 2>&1; ls /sys/firmware | wc -l; head -c 1 /proc/kcore | wc -c; ls /proc/acpi 2>/dev/null | wc -l
echo "== root"; ls -la / | awk '{print $1,$3,$4,$NF}' | grep -v '^total'; (touch /newfile && rm /newfile && echo writable) 2>&1
echo "== mounts"; cat /proc/self/mountinfo
`

// agreement is a spec that both engines are to start alike.
type agreement struct {
	name   string
	change func(n *Node, s *specs.Spec)
	tty    bool
}

func agreements(t *testing.T) []agreement {
	volume := func(n *Node) string {
		dir := filepath.Join(n.Dir, "volume")
		if err := os.MkdirAll(filepath.Join(dir, "inner"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		// Where the host's root is shared, as systemd makes it, libcontainer leaves a mount of which nothing is said with a private
		// copy, and a slave too; ours keeps what the root's propagation says. What Kubernetes asks for is always said.
		if unix.Mount("", dir, "", unix.MS_PRIVATE, "") != nil {
			if err := errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_PRIVATE, "")); err != nil {
				t.Fatal(err)
			}
			n.T.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		}
		return dir
	}
	bind := func(n *Node, s *specs.Spec, dest, part string, options ...string) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: filepath.Join(volume(n), part), Options: options})
	}
	return []agreement{
		{name: "plain", change: func(*Node, *specs.Spec) {}},
		{name: "terminal", change: func(_ *Node, s *specs.Spec) { s.Process.User.UID = 1000 }, tty: true},
		{name: "user", change: func(_ *Node, s *specs.Spec) {
			umask := uint32(0o077)
			s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 2000}, Umask: &umask}
		}},
		{name: "unknown user, no rights", change: func(_ *Node, s *specs.Spec) {
			s.Process.User = specs.User{UID: 54321, GID: 54321}
			s.Process.Capabilities = &specs.LinuxCapabilities{}
			s.Process.NoNewPrivileges = true
		}},
		{name: "ambient", change: func(_ *Node, s *specs.Spec) {
			caps := []string{"CAP_NET_BIND_SERVICE", "CAP_CHOWN", "CAP_NO_SUCH"}
			s.Process.User.UID = 1000
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps[:1]}
		}},
		{name: "seccomp", change: func(_ *Node, s *specs.Spec) { Confine(t, s) }},
		{name: "seccomp and no new privileges", change: func(_ *Node, s *specs.Spec) {
			s.Process.NoNewPrivileges = true
			s.Process.User.UID = 1000
			Confine(t, s)
		}},
		{name: "read-only root", change: func(_ *Node, s *specs.Spec) { s.Root.Readonly = true }},
		{name: "limits", change: func(_ *Node, s *specs.Spec) {
			adj := 500
			s.Process.OOMScoreAdj = &adj
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 500, Soft: 300}, {Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NPROC", Hard: 90, Soft: 80}}
		}},
		{name: "environment", change: func(_ *Node, s *specs.Spec) {
			s.Process.Env = []string{"PATH=/nowhere:/bin", "A=1", "B=2", "A=3", "HOME=", "C=x=y"}
		}},
		{name: "working directory that is missing", change: func(_ *Node, s *specs.Spec) { s.Process.Cwd = "/tmp/a/b" }},
		{name: "cgroups and mqueue", change: func(_ *Node, s *specs.Spec) {
			s.Mounts = append(s.Mounts,
				specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
				specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
		}},
		{name: "binds", change: func(n *Node, s *specs.Spec) {
			bind(n, s, "/v/rw", "", "rbind", "rprivate", "rw")
			bind(n, s, "/v/ro", "", "rbind", "rprivate", "ro")
			bind(n, s, "/v/flags", "", "bind", "ro", "nosuid", "nodev", "noexec")
			bind(n, s, "/v/rro", "", "rbind", "rro")
			bind(n, s, "/etc/file", "file", "bind", "ro")
			bind(n, s, "/v/slave", "", "rbind", "rslave")
			bind(n, s, "/v/rw/inner", "inner", "bind")
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/v/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "noexec", "size=1m", "mode=700"}})
		}},
		{name: "shared root", change: func(n *Node, s *specs.Spec) {
			s.Linux.RootfsPropagation = "rshared"
			bind(n, s, "/v/shared", "", "rbind", "rshared")
		}},
		{name: "devices", change: func(_ *Node, s *specs.Spec) {
			mode, id := os.FileMode(0o640), uint32(1000)
			s.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &id, GID: &id},
				{Path: "/dev/sub/dir/zero", Type: "c", Major: 1, Minor: 5},
			}
		}},
		{name: "cgroup namespace", change: func(_ *Node, s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}},
		{name: "privileged", change: func(n *Node, s *specs.Spec) {
			var all []string
			for _, name := range []string{"CHOWN", "DAC_OVERRIDE", "SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "BPF", "MKNOD"} {
				all = append(all, "CAP_"+name)
			}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: nil}
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		}},
		{name: "host namespaces", change: func(_ *Node, s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
			s.Hostname = ""
		}},
	}
}

// TestEnginesAgree starts the same containers with both engines, and execs in
// them, and compares what they see.
func TestEnginesAgree(t *testing.T) {
	if Engine != "" {
		t.Skip("compares the engines: once is enough")
	}
	for _, a := range agreements(t) {
		t.Run(a.name, func(t *testing.T) {
			saw := map[string][2]string{}
			for _, Engine = range []string{container.EngineLibcontainer, ""} {
				saw[Engine] = runProbe(t, a)
			}
			for i, what := range []string{"container", "exec"} {
				want, got := saw[container.EngineLibcontainer][i], saw[""][i]
				if !agree(want, got) {
					t.Errorf("%s: libcontainer (-) and native (+) differ:\n%s", what, diff(want, got))
				}
			}
		})
	}
}

func runProbe(t *testing.T, a agreement) [2]string {
	t.Helper()
	n := New(t)
	cfg := n.Sh("c", probe+"echo told; echo ended >&2; while :; do sleep 1000; done")
	cfg.TTY = a.tty
	a.change(n, cfg.Spec)
	native := filepath.Join(n.StateDir(), "c", "native.json")
	n.Run(cfg)
	n.awaitOutput("c", "told")
	n.awaitOutput("c", "ended") // the streams reach the log side by side
	if _, err := os.Stat(native); (err == nil) != (Engine == "") {
		t.Errorf("engine %q, but native.json: %v", Engine, err)
	}
	p := Process("sh", "-c", probe)
	p.User, p.Capabilities, p.NoNewPrivileges, p.Cwd = cfg.Spec.Process.User, cfg.Spec.Process.Capabilities, cfg.Spec.Process.NoNewPrivileges, cfg.Spec.Process.Cwd
	var out, errs bytes.Buffer // the streams are written side by side
	code, err := n.Exec(t.Context(), "c", container.ExecConfig{Process: p, Stdout: &out, Stderr: &errs, TTY: a.tty})
	if err != nil || code != 0 {
		t.Fatalf("exec: %d, %v\n%s%s", code, err, out.String(), errs.String())
	}
	started := n.Output("c", "stdout") + n.Output("c", "stderr")
	return [2]string{n.normal(started), n.normal(out.String() + errs.String())}
}

var (
	mountHead = regexp.MustCompile(`(?m)^\d+ \d+ \d+:\d+ `)
	peers     = regexp.MustCompile(`(shared|master|propagate_from):\d+`)
	pids      = regexp.MustCompile(`(?m)^(NSpid|NSsid|NSpgid):.*$`)
	tempDir   = regexp.MustCompile(`/tmp/keelson-test-[a-z0-9-]+`)
	// The groups of tests beside this one, under v2; and a limit of the keeper itself, which libcontainer raises to load a device filter.
	others = regexp.MustCompile(`(?m)^(keelson-test-[0-9-]+|max locked memory .*)\n`)
)

// normal takes out what differs between any two containers.
func (n *Node) normal(text string) string {
	text = strings.ReplaceAll(text, "\r", "")
	text = strings.ReplaceAll(text, n.Cgroup, "/GROUP")
	text = mountHead.ReplaceAllString(text, "")
	text = peers.ReplaceAllString(text, "$1")
	text = pids.ReplaceAllStringFunc(text, func(line string) string { // inside a namespace of its own
		name, _, _ := strings.Cut(line, ":")
		return name
	})
	text = tempDir.ReplaceAllString(text, "/TEMP")
	text = others.ReplaceAllString(text, "")
	head, mounts, _ := strings.Cut(text, "== mounts\n")
	lines := strings.Split(mounts, "\n")
	slices.Sort(lines)
	return head + strings.Join(lines, "\n")
}

// betterHere are the lines in which the native engine differs on purpose: what
// it shows of cgroup v1 is read-only at the top too.
var betterHere = regexp.MustCompile(`/sys/fs/cgroup r[wo],nosuid,nodev,noexec,relatime - tmpfs|touch: /sys/fs/cgroup/x: Read-only file system|^x$`)

func agree(a, b string) bool {
	for line := range strings.Lines(diff(a, b)) {
		if !betterHere.MatchString(strings.TrimSpace(line[2:])) {
			return false
		}
	}
	return true
}

// diff shows the lines that only one of two texts has.
func diff(a, b string) string {
	var out strings.Builder
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, line := range la {
		if !slices.Contains(lb, line) {
			out.WriteString("- " + line + "\n")
		}
	}
	for _, line := range lb {
		if !slices.Contains(la, line) {
			out.WriteString("+ " + line + "\n")
		}
	}
	return out.String()
}

// hostMounts are the mounts of the host, but those of tests that run beside this one.
func (n *Node) hostMounts() string {
	n.T.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.T.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return strings.Contains(line, os.TempDir()+"/keelson-") && !strings.Contains(line, n.Dir)
	})
	return strings.Join(lines, "\n")
}

// TestHostile_OC18: what a container mounts does not show on the host, nor
// does its root's mounting.
func TestHostile_OC18(t *testing.T) {
	n := New(t)
	before := n.hostMounts()
	for _, mode := range []string{"", "rslave", "rshared"} {
		id := "c" + mode
		cfg := n.Sh(id, "mount -t tmpfs x /tmp; mount -t tmpfs y /root; echo ready; while :; do sleep 1000; done")
		caps := []string{"CAP_SYS_ADMIN"}
		cfg.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		cfg.Spec.Linux.RootfsPropagation = mode
		n.Run(cfg)
		n.awaitOutput(id, "ready")
	}
	if after := n.hostMounts(); before != after {
		t.Errorf("the host's mounts changed:\n%s", diff(before, after))
	}
}

// TestHostile_OC1_OC2 has an image whose mount points are symlinks out of it,
// at the end and on the way, and looks where mounts and new directories went.
func TestHostile_OC1_OC2(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	victim := filepath.Join(n.Dir, "victim")
	if err := os.MkdirAll(filepath.Join(victim, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(n.Dir, "root")
	if err := os.CopyFS(root, os.DirFS(n.Rootfs)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "bin/busybox"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"out": victim, "up": "../../../../../../.." + victim, "procself": "/proc/self/cwd"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dest := range []string{"/out", "/out/new", "/up", "/up/new/deep", "/procself/x"} {
		cfg := n.Sh("c", "mount; true")
		cfg.Spec.Root.Path = root
		cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs"})
		if err := n.Create(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Start(ctx, "c"); err == nil {
			n.Await("c")
		}
		if err := n.Remove(ctx, "c"); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(victim)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: the host's directory holds %v, %v", dest, entries, err)
		}
	}
}

// TestMountsUnderProcSymlink: /proc as a symlink is not mounted on.
func TestMountsUnderProcSymlink(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	root := filepath.Join(n.Dir, "root")
	if err := os.CopyFS(root, os.DirFS(n.Rootfs)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tmp", filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	cfg := n.Sh("c", "true")
	cfg.Spec.Root.Path = root
	if err := n.Create(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Start(ctx, "c"); err == nil {
		t.Errorf("started: %+v", s)
	}
}
