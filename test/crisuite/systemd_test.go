package crisuite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/test/lab/systemdbus"
)

// TestSystemdDriver runs the real stack under the systemd cgroup driver, over
// D-Bus, against a model of systemd that makes the cgroups on this machine. Limits
// and device rules outlast what daemon-reload writes anew (OC22).
func TestSystemdDriver(t *testing.T) {
	model := systemdbus.Start(t)
	top := cgroup.SliceName(fmt.Sprintf("keelsontest%d", os.Getpid()))
	t.Cleanup(func() { removeSlice(t, top) })
	n := NewNode(t, logOf(t), func(n *Node) {
		n.Systemd = true
		t.Cleanup(func() { removeSlice(t, cgroup.SliceName(strings.TrimPrefix(n.Cgroup, "/"))) }) // of pods that name none
	})
	b := NewBench(t, n.target())
	conf, err := b.RuntimeConfig(t.Context(), &runtimeapi.RuntimeConfigRequest{})
	if err != nil || conf.GetLinux().GetCgroupDriver() != runtimeapi.CgroupDriver_SYSTEMD {
		t.Errorf("RuntimeConfig: %v, %v; want systemd", conf, err)
	}
	slice := cgroup.SliceName(strings.TrimSuffix(top, ".slice"), "pod1-2")
	under := func(parent string) func(*runtimeapi.PodSandboxConfig) {
		return func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = parent }
	}
	bad := b.PodConfig(under("/kubepods/burstable/pod1"))
	if _, err := b.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: bad}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a cgroup parent that is no slice: %v, want InvalidArgument", err)
	}
	pc := b.PodConfig(under("/kubelet/may/give/the/path/" + slice))
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 512}
	}))
	scope := "cri-containerd-" + id + ".scope"
	if units := model.Units(); !slices.Contains(units, slice) || !slices.Contains(units, scope) {
		t.Fatalf("units %v, want %s and %s", units, slice, scope)
	}
	at := filepath.Join("/", top, slice, scope)
	if got := b.Sh(id, "grep -c '"+at+"$' /proc/self/cgroup"); strings.TrimSpace(got) == "0" {
		t.Errorf("an exec is not in %s:\n%s", at, b.Sh(id, "cat /proc/self/cgroup"))
	}
	if got := model.Property(scope, "Slice"); got != slice {
		t.Errorf("the scope's slice is %v", got)
	}
	if got := model.Property(scope, "Delegate"); got != true {
		t.Error("the scope is not delegated")
	}
	limits(t, model, at, scope, 64<<20, 512)
	noOtherDevice(b, id)
	_, err = b.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, CpuShares: 300}})
	if err != nil {
		t.Fatal(err)
	}
	limits(t, model, at, scope, 96<<20, 300)
	noOtherDevice(b, id)
	stats, err := b.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil || stats.GetStats().GetMemory().GetWorkingSetBytes().GetValue() == 0 {
		t.Errorf("stats %v, %v", stats, err)
	}
	own := b.PodConfig(under(""))
	second := b.RunPod(own)
	b.StartIn(second, own, b.ContainerConfig("exec sleep 1000"))
	b.RemovePod(second)
	b.RemovePod(pod)
	if units := model.Units(); len(units) > 0 {
		t.Errorf("units are left: %v", units)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + filepath.Join("/", top, slice)); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

// limits must be in force, and stay so when systemd writes its own again.
func limits(t *testing.T, model *systemdbus.Manager, at, scope string, memory, shares uint64) {
	t.Helper()
	if m, c := model.Property(scope, "MemoryLimit"), model.Property(scope, "CPUShares"); m != memory || c != shares {
		t.Errorf("the unit's limits are %v bytes and %v shares, want %d and %d", m, c, memory, shares)
	}
	for _, when := range []string{"made", "after a reload"} {
		for file, want := range map[string]uint64{"memory/" + at + "/memory.limit_in_bytes": memory, "cpu/" + at + "/cpu.shares": shares} {
			text, err := os.ReadFile("/sys/fs/cgroup/" + file)
			if got := strings.TrimSpace(string(text)); err != nil || got != fmt.Sprint(want) {
				t.Errorf("%s: %s is %q, %v; want %d", when, file, got, err, want)
			}
		}
		if err := model.Reload(); err != nil {
			t.Fatal(err)
		}
	}
}

// noOtherDevice (OC22): what systemd resets must not open the machine's devices.
func noOtherDevice(b *Bench, id string) {
	b.Helper()
	b.Sh(id, "rm -f /tmp/kmsg; mkdir -p /tmp; mknod /tmp/kmsg c 1 11; echo x > /dev/null")
	if r := b.ShCode(id, "head -c 1 < /tmp/kmsg"); r.GetExitCode() == 0 || !strings.Contains(string(r.GetStderr()), "not permitted") {
		b.Errorf("a device that was made opens: %q, %q", r.GetStdout(), r.GetStderr())
	}
}

func removeSlice(t *testing.T, name string) {
	h, err := cgroup.Detect()
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := h.Group("/" + name).Remove(ctx); err != nil {
		t.Error(err)
	}
}
