package crisuite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/cgroup"
)

var hostileSpecs = []Spec{
	{"TestHostile_OC21: out of memory is told as such", true, outOfMemory},
	{"TestHostile_OC24: a hung filesystem harms its own pod alone", true, hungFilesystem},
	{"TestHostile_CR9: execs and attachments that come and go leave nothing", true, streamsComeAndGo},
	{"TestHostile_CR12: a limit below what is in use", true, limitBelowUsage},
	{"TestHostile_CR14: the socket is root's", true, socketModes},
	{"TestHostile_OC14: annotations change nothing", true, hostileAnnotations},
}

func outOfMemory(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	st := b.Await(b.StartIn(pod, pc, b.ContainerConfig("exec tail /dev/zero", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources.MemoryLimitInBytes = 16 << 20
	})))
	if st.GetReason() != "OOMKilled" || st.GetExitCode() != 137 {
		b.Errorf("reason %q, code %d", st.GetReason(), st.GetExitCode())
	}
	// One of several: the container goes on and ends as it likes, unless all of it is to go.
	child := func(unified map[string]string) *runtimeapi.ContainerStatus {
		return b.Await(b.StartIn(pod, pc, b.ContainerConfig("tail /dev/zero; exit 3", func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources.MemoryLimitInBytes, c.Linux.Resources.Unified = 16<<20, unified
		})))
	}
	if st := child(nil); st.GetReason() != "Error" || st.GetExitCode() != 3 {
		b.Errorf("a child was killed: reason %q, code %d; want Error, 3", st.GetReason(), st.GetExitCode())
	}
	if h, err := cgroup.Detect(); err != nil || !h.Unified() {
		b.Log("without cgroup v2 the kernel kills one process only")
		return
	}
	if st := child(map[string]string{"memory.oom.group": "1"}); st.GetReason() != "OOMKilled" || st.GetExitCode() != 137 {
		b.Errorf("a child was killed and all others with it: reason %q, code %d; want OOMKilled, 137", st.GetReason(), st.GetExitCode())
	}
}

// silentFS mounts a filesystem whose server never answers: every look at it
// waits until give is called.
func silentFS(b *Bench) (dir string, give func()) {
	b.Helper()
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Skip("needs /dev/fuse: ", err)
	}
	dir = filepath.Join(b.Target.LogDir, name("hung"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := unix.Mount("silent", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse)); err != nil {
		unix.Close(fuse)
		b.Skip("cannot mount FUSE: ", err)
	}
	given := false
	give = func() {
		if !given {
			given = true
			unix.Close(fuse) // ends the connection: whoever waits gets an error
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}
	b.Cleanup(give)
	return dir, give
}

func hungFilesystem(b *Bench) {
	dir, give := silentFS(b)
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	cfg := b.ContainerConfig("true", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{HostPath: dir + "/volume", ContainerPath: "/volume"}}
	})
	create := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(b.Context(), limit)
		defer cancel()
		_, err := b.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc})
		return err
	}
	if err := create(500 * time.Millisecond); status.Code(err) != codes.DeadlineExceeded {
		b.Fatalf("a container over a hung filesystem: %v, want DeadlineExceeded", err)
	}
	// The client asks again while the first call still hangs, and other pods live.
	if err := create(100 * time.Millisecond); err == nil {
		b.Error("the second try got a container while the filesystem hangs")
	}
	oc := b.PodConfig()
	other := b.RunPod(oc)
	id := b.StartIn(other, oc, b.ContainerConfig("exec sleep 1000"))
	if got := b.Sh(id, "echo alive"); got != "alive\n" {
		b.Errorf("another pod says %q", got)
	}
	for what, err := range map[string]error{
		"list":   second(b.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{})),
		"stats":  second(b.ListPodSandboxStats(b.Context(), &runtimeapi.ListPodSandboxStatsRequest{})),
		"status": second(b.PodSandboxStatus(b.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})),
		"stop":   second(b.StopPodSandbox(b.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: other})),
	} {
		if err != nil {
			b.Errorf("%s: %v", what, err)
		}
	}
	give()
	// Once the filesystem is gone, the name is free again.
	cfg.Mounts = nil
	b.eventually("the container's name to be free", func() bool {
		return create(20*time.Second) == nil
	})
}

func streamsComeAndGo(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	b.Sh(id, "true")
	files, routines := descriptorCount(b), runtime.NumGoroutine()
	for range 100 {
		b.Sh(id, "true")
		// Asked for and never used: the address is all there is.
		b.execURL(&runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
		if _, err := b.Attach(b.Context(), &runtimeapi.AttachRequest{ContainerId: id, Stdout: true}); err != nil {
			b.Fatal(err)
		}
	}
	talks := b.StartIn(pod, pc, b.ContainerConfig("while :; do echo tick; sleep 0.01; done"))
	for name, dial := range dialers {
		for n := range uint16(5) {
			b.openAndClose(name, dial, talks, remotecommand.TerminalSize{Width: 80 + n, Height: 24})
		}
	}
	if _, err := b.RemoveContainer(b.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: talks}); err != nil {
		b.Fatal(err)
	}
	b.eventually("descriptors and goroutines to be given back", func() bool {
		return descriptorCount(b) <= files+8 && runtime.NumGoroutine() <= routines+8
	})
}

// openAndClose runs a command with a terminal of that size to its end, and goes
// away from an attachment in the middle of what is said.
func (b *Bench) openAndClose(transport string, dial func(*url.URL) (remotecommand.Executor, error), id string, size remotecommand.TerminalSize) {
	b.Helper()
	ex, err := dial(b.execURL(&runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true, Tty: true}))
	if err != nil {
		b.Fatal(err)
	}
	sizes := make(sizeQueue, 1)
	sizes <- size
	close(sizes)
	if err := ex.StreamWithContext(b.Context(), remotecommand.StreamOptions{Stdout: io.Discard, Tty: true, TerminalSizeQueue: sizes}); err != nil {
		b.Errorf("%s: %v", transport, err)
	}
	resp, err := b.Attach(b.Context(), &runtimeapi.AttachRequest{ContainerId: id, Stdout: true})
	if err != nil {
		b.Fatal(err)
	}
	u, err := url.Parse(resp.GetUrl())
	if err != nil {
		b.Fatal(err)
	}
	if ex, err = dial(u); err != nil {
		b.Fatal(err)
	}
	ctx, leave := context.WithCancel(b.Context())
	defer leave()
	if err := ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: leaver(leave)}); !errors.Is(err, context.Canceled) {
		b.Errorf("%s: an attachment that was left: %v", transport, err)
	}
}

// leaver leaves at the first word.
type leaver func()

func (l leaver) Write(p []byte) (int, error) { l(); return len(p), nil }

func limitBelowUsage(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo up; while :; do sleep 1; done", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources.MemoryLimitInBytes = 256 << 20
	}))
	b.awaitLog(id, "up")
	_, err := b.UpdateContainerResources(b.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 8 << 20}})
	told := b.Status(id).GetResources().GetLinux().GetMemoryLimitInBytes()
	switch {
	case err != nil && told != 256<<20:
		b.Errorf("refused (%v), and yet the status tells %d", err, told)
	case err == nil && told != 8<<20:
		b.Errorf("accepted, and yet the status tells %d", told)
	}
	if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		b.Errorf("stop: %v", err)
	}
}

// dialAs connects to a unix socket as a user. The identity is this thread's,
// which ends with the goroutine.
func dialAs(uid int, path string) error {
	result := make(chan error, 1)
	go func() { // ends with its answer
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread does not end, and /proc/self speaks of it: without rights, of a process that can give none to a container.
			defer runtime.UnlockOSThread()
			result <- dialAs(uid, path)
			return
		}
		id := uintptr(uid)
		for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, id, id, id}, {unix.SYS_SETRESUID, id, id, id}} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				result <- errno
				return
			}
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
			unix.Close(fd)
		}
		result <- err
	}()
	return <-result
}

func socketModes(b *Bench) {
	st, err := os.Stat(b.Target.Socket)
	if err != nil {
		b.Fatal(err)
	}
	if owner := st.Sys().(*syscall.Stat_t).Uid; st.Mode().Perm() != 0o660 || owner != 0 {
		b.Errorf("the socket has mode %v and owner %d", st.Mode().Perm(), owner)
	}
	if err := dialAs(0, b.Target.Socket); err != nil { // the path itself lets everybody through
		b.Errorf("root: %v", err)
	}
	if err := dialAs(65534, b.Target.Socket); err != unix.EACCES {
		b.Errorf("another user: %v, want EACCES", err)
	}
}

func hostileAnnotations(b *Bench) {
	evil := map[string]string{
		"org.systemd.property.ExecStartPre": "['/bin/touch','/tmp/owned']", "io.kubernetes.cri-o.userns-mode": "auto",
		"io.kubernetes.cri-o.Devices": "/dev/mem", "run.oci.hooks": "/bin/sh", "io.containerd.runc.v2.group": "../../x",
	}
	pc := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) { c.Annotations = evil })
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) { c.Annotations = evil }))
	if got := b.Sh(id, "ls /dev/mem 2>/dev/null | wc -l; head -1 /proc/self/uid_map | tr -s ' '"); got != "0\n 0 0 4294967295\n" {
		b.Errorf("the container sees %q", got)
	}
	if got := b.Status(id).GetAnnotations()["run.oci.hooks"]; got != "/bin/sh" {
		b.Errorf("the annotation comes back as %q", got)
	}
}
