package crisuite

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var usernsSpecs = []Spec{
	{"a pod in a user namespace", true, userNamespace},
	{"TestHostile_OC17: a user namespace that cannot be is refused", false, usernsRefused},
}

const firstID = 200000

// Userns makes it a pod of a user namespace.
func Userns(c *runtimeapi.PodSandboxConfig) {
	ids := []*runtimeapi.IDMapping{{ContainerId: 0, HostId: firstID, Length: 65536}}
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
}

// needUserns skips where the runtime says that it has none.
func (b *Bench) needUserns() {
	b.Helper()
	st, err := b.Client.Status(b.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		b.Fatal(err)
	}
	for _, h := range st.GetRuntimeHandlers() {
		if h.GetName() == "" && h.GetFeatures().GetUserNamespaces() {
			return
		}
	}
	b.Skip("the runtime has no user namespaces here")
}

func userNamespace(b *Bench) {
	b.needUserns()
	for _, pid := range []runtimeapi.NamespaceMode{runtimeapi.NamespaceMode_CONTAINER, runtimeapi.NamespaceMode_POD} {
		pc := b.PodConfig(Userns, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = pid
			c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "2000 3000"}
		})
		pod := b.RunPod(pc)
		dir := filepath.Join(b.Target.LogDir, name("volume"))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		ids := pc.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
		id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", pidMode(pid, ""), func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{
				{HostPath: dir, ContainerPath: "/volume", UidMappings: ids.GetUids(), GidMappings: ids.GetGids()},
				{Image: &runtimeapi.ImageSpec{Image: b.Target.Image}, ContainerPath: "/image", Readonly: true, UidMappings: ids.GetUids(), GidMappings: ids.GetGids()},
			}
			c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}}
			c.Linux.SecurityContext.SupplementalGroups = []int64{4321}
		}))
		for script, want := range map[string]string{
			"cat /proc/1/uid_map /proc/self/gid_map | tr -s ' '":   " 0 200000 65536\n 0 200000 65536\n",
			"stat -c %u:%g /bin/sh /etc/hosts /dev/shm":            "0:0\n0:0\n0:0\n",
			"stat -c %u:%g /image/bin && /image/bin/busybox id -u": "0:0\n0\n",
			"id -u; id -G":                               "0\n0 4321\n",
			"cat /proc/sys/kernel/shm_rmid_forced":       "1\n",
			"cat /proc/sys/net/ipv4/ip_local_port_range": "2000\t3000\n",
			"hostname": "suite-host\n",
			"ip link set lo mtu 1400 && echo own network":             "own network\n",
			"touch /root/x /volume/x && stat -c %u /root/x /volume/x": "0\n0\n",
			"ping -c 1 -W 20 127.0.0.1 >/dev/null && echo up":         "up\n",
		} {
			if got := b.Sh(id, script); got != want {
				b.Errorf("PID mode %v: %q gives %q, want %q", pid, script, got, want)
			}
		}
		st, err := os.Stat(filepath.Join(dir, "x"))
		if err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
			b.Errorf("a file in an id-mapped volume is %+v, %v; want root's", st, err)
		}
		// On the node the process has none of root's ids.
		if host := b.Sh(id, "readlink /proc/self/ns/user"); strings.TrimSpace(host) == nodeUserns(b) {
			b.Error("the container is in the node's user namespace")
		}
		if _, err := b.StopPodSandbox(b.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
			b.Error(err)
		}
	}
}

func nodeUserns(b *Bench) string {
	ns, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		b.Fatal(err)
	}
	return ns
}

func usernsRefused(b *Bench) {
	one := func(c, h, n uint32) []*runtimeapi.IDMapping {
		return []*runtimeapi.IDMapping{{ContainerId: c, HostId: h, Length: n}}
	}
	for name, u := range map[string]*runtimeapi.UserNamespace{
		"of a container":       {Mode: runtimeapi.NamespaceMode_CONTAINER},
		"of a target":          {Mode: runtimeapi.NamespaceMode_TARGET},
		"two ranges":           {Uids: append(one(0, 1000, 10), one(10, 5000, 10)...), Gids: one(0, 1000, 10)},
		"without root":         {Uids: one(1, 1000, 10), Gids: one(1, 1000, 10)},
		"without groups":       {Uids: one(0, 1000, 10)},
		"beyond 32 bits":       {Uids: one(0, 4294967000, 1000), Gids: one(0, 4294967000, 1000)},
		"empty":                {Uids: one(0, 1000, 0), Gids: one(0, 1000, 0)},
		"ranges of the node's": {Mode: runtimeapi.NamespaceMode_NODE, Uids: one(0, 1000, 10), Gids: one(0, 1000, 10)},
	} {
		cfg := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = u })
		if _, err := b.RunPodSandbox(b.Context(), &runtimeapi.RunPodSandboxRequest{Config: cfg}); status.Code(err) != codes.InvalidArgument {
			b.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
	cfg := b.PodConfig(Userns, func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE
	})
	if _, err := b.RunPodSandbox(b.Context(), &runtimeapi.RunPodSandboxRequest{Config: cfg}); status.Code(err) != codes.InvalidArgument {
		b.Errorf("with the node's PID namespace: %v, want InvalidArgument", err)
	}
}
