package runtimetest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/container"
)

// TestHostile_OC9 tries what the default seccomp profile is there to stop, in
// the first process and in an exec, with and without no_new_privs.
func TestHostile_OC9(t *testing.T) {
	n := New(t)
	for _, strict := range []bool{false, true} {
		id := "loose"
		if strict {
			id = "strict"
		}
		const try = `grep Seccomp: /proc/self/status; grep NoNewPrivs /proc/self/status
			mount -t tmpfs x /tmp 2>&1; unshare -U true 2>&1; unshare -m true 2>&1; date -s 2020-01-01 2>&1; true`
		cfg := n.Sh(id, try+"; echo ready; while :; do sleep 1000; done")
		cfg.Spec.Process.NoNewPrivileges = strict
		Confine(t, cfg.Spec)
		n.Run(cfg)
		n.awaitOutput(id, "ready")
		p := Process("sh", "-c", try)
		p.NoNewPrivileges = strict
		p.Capabilities = cfg.Spec.Process.Capabilities
		out := newWatcher()
		if _, err := n.Exec(t.Context(), id, container.ExecConfig{Process: p, Stdout: out}); err != nil {
			t.Fatal(err)
		}
		for what, text := range map[string]string{"container": n.Output(id, "stdout"), "exec": out.String()} {
			nnp := "NoNewPrivs:\t0"
			if strict {
				nnp = "NoNewPrivs:\t1"
			}
			if !strings.Contains(text, "Seccomp:\t2") || !strings.Contains(text, nnp) || strings.Count(text, "not permitted")+strings.Count(text, "permission denied") < 4 {
				t.Errorf("%s %s:\n%s", id, what, text)
			}
		}
	}
}

// TestHostile_OC6_OC7_OC8 are the runtime's share of them: what the spec
// protects is protected.
func TestHostile_OC6_OC7_OC8(t *testing.T) {
	n := New(t)
	n.Run(n.Sh("c", `echo x > /proc/sys/kernel/core_pattern && echo BAD1
		echo b > /proc/sysrq-trigger && echo BAD2
		mkdir /sys/fs/cgroup/x && echo BAD3
		[ -n "$(head -c 1 /proc/kcore)" ] && echo BAD4
		[ -n "$(ls /sys/firmware)" ] && echo BAD5
		[ -n "$(head -c 1 /proc/timer_list)" ] && echo BAD6
		mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk && echo BAD7
		head -c 1 /dev/zero > /dev/null && echo fine`))
	n.Await("c")
	if out := n.Output("c", "stdout"); out != "fine\n" {
		t.Errorf("out %q, err %q", out, n.Output("c", "stderr"))
	}
}

// TestHostile_IM23 names a working directory by a leaked descriptor.
func TestHostile_IM23(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	for i := range 12 {
		cfg := n.Config("c", "ls")
		cfg.Spec.Process.Cwd = "/proc/self/fd/" + string(rune('0'+i%10))
		if i >= 10 {
			cfg.Spec.Process.Cwd = "/proc/self/fd/1" + string(rune('0'+i%10))
		}
		if err := n.Create(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if s, err := n.Start(ctx, "c"); err == nil {
			t.Errorf("started in %s: %+v", cfg.Spec.Process.Cwd, s)
		}
		if err := n.Remove(ctx, "c"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHostile_IM29 mounts where the kernel is told and asked of processes. What
// only shows numbers may be replaced, as lxcfs does.
func TestHostile_IM29(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	dir, file := filepath.Join(n.Dir, "fake"), filepath.Join(n.Dir, "uptime")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(file, []byte("42\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	ran := ""
	for dest, source := range map[string]string{"/proc/self/attr": dir, "/proc/sys": dir, "/proc/1": dir, "/proc/../proc/sysrq-trigger": file, "/proc/uptime": file} {
		cfg := n.Sh("c", "cat /proc/uptime")
		cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: source, Options: []string{"rbind"}})
		if err := n.Create(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		_, err := n.Start(ctx, "c")
		if (err == nil) != (dest == "/proc/uptime") {
			t.Errorf("a mount on %s: %v", dest, err)
		}
		if err == nil {
			n.Await("c")
			ran += n.Output("c", "stdout")
		}
		if err := n.Remove(ctx, "c"); err != nil {
			t.Fatal(err)
		}
	}
	if ran != "42\n" {
		t.Errorf("with a file of its own as /proc/uptime a container reads %q", ran)
	}
}

// TestHostile_IM30 has an image whose entrypoint is its runtime's program.
func TestHostile_IM30(t *testing.T) {
	n := New(t)
	n.Run(n.Sh("c", `echo '#!/proc/self/exe' > /tmp/x; cat /proc/1/exe > /dev/null; (echo pwned > /proc/1/exe) 2>&1; sleep 0.1; echo done`))
	n.sleeper("target")
	// An exec is the moment at which the runtime's program is in the container.
	for range 5 {
		out, _, _, err := n.exec("target", "for p in /proc/[0-9]*; do (echo pwned > $p/exe) 2>/dev/null && echo BAD $p; done; true", container.ExecConfig{})
		if err != nil || strings.Contains(out, "BAD") {
			t.Errorf("%q, %v", out, err)
		}
	}
	n.Await("c")
	if out := n.Output("c", "stdout"); !strings.HasSuffix(out, "done\n") {
		t.Errorf("%q", out)
	}
}
