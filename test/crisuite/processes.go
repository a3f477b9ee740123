package crisuite

import (
	"context"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Await waits for a container's end by the event stream, not by asking again and
// again.
func (b *Bench) Await(id string) *runtimeapi.ContainerStatus {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	events, err := b.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		b.Fatal(err)
	}
	// The header says that the subscription stands; what ended before is in the
	// status.
	if _, err := events.Header(); err != nil {
		b.Fatal(err)
	}
	for {
		if st := b.Status(id); st.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
			return st
		}
		for {
			e, err := events.Recv()
			if err != nil {
				b.Fatalf("wait for the end of %s: %v", id, err)
			}
			if e.GetContainerId() == id && e.GetContainerEventType() == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
				break
			}
		}
	}
}

func exitCodes(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for script, want := range map[string]struct {
		code   int32
		reason string
	}{
		"exit 0": {0, "Completed"}, "exit 42": {42, "Error"},
		// A child's signal becomes the shell's code.
		"sh -c 'kill -9 $$'; exit $?": {137, "Error"},
	} {
		st := b.Await(b.StartIn(pod, pc, b.ContainerConfig(script)))
		if st.GetExitCode() != want.code || st.GetReason() != want.reason {
			b.Errorf("%q: code %d, reason %q; want %d, %q", script, st.GetExitCode(), st.GetReason(), want.code, want.reason)
		}
	}
	id := b.CreateIn(pod, pc, b.ContainerConfig("", func(c *runtimeapi.ContainerConfig) { c.Command = []string{"/no/such/program"} }))
	if _, err := b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		b.Errorf("start of a program that is not there: %v", err)
	}
	if st := b.Status(id); st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 128 || st.GetReason() != "StartError" {
		b.Errorf("after a failed start: %v", st)
	}
}

func stopSignals(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	const script = `trap 'exit 7' TERM; trap 'exit 8' USR1; echo up; while :; do sleep 0.05; done`
	for _, c := range []struct {
		signal  runtimeapi.Signal
		timeout int64
		want    int32
	}{
		{runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, 20, 7}, {runtimeapi.Signal_SIGNAL_SIGUSR1, 20, 8}, {runtimeapi.Signal_SIGNAL_SIGUSR1, 0, 137},
	} {
		id := b.StartIn(pod, pc, b.ContainerConfig(script, func(cfg *runtimeapi.ContainerConfig) { cfg.StopSignal = c.signal }))
		b.awaitLog(id, "up")
		if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: c.timeout}); err != nil {
			b.Fatal(err)
		}
		if st := b.Status(id); st.GetExitCode() != c.want {
			b.Errorf("stop by %v in %d s: code %d, want %d", c.signal, c.timeout, st.GetExitCode(), c.want)
		}
	}
	// One that ignores the signal is killed when its time is over.
	id := b.StartIn(pod, pc, b.ContainerConfig(`trap '' TERM; echo up; while :; do sleep 0.05; done`))
	b.awaitLog(id, "up")
	if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 1}); err != nil {
		b.Fatal(err)
	}
	if st := b.Status(id); st.GetExitCode() != 137 {
		b.Errorf("one that ignores TERM: code %d", st.GetExitCode())
	}
}

func updateResources(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 128 << 20}
	}))
	limited := func(when, want string) {
		b.Helper()
		if !b.Target.Processes {
			return
		}
		got := strings.TrimSpace(b.Sh(id, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true"))
		if got != want {
			b.Errorf("memory limit %q %s the update, want %s", got, when, want)
		}
	}
	limited("before", "134217728")
	if _, err := b.UpdateContainerResources(b.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 256 << 20}}); err != nil {
		b.Fatal(err)
	}
	limited("after", "268435456")
	r := b.Status(id).GetResources().GetLinux()
	if r.GetMemoryLimitInBytes() != 256<<20 || r.GetCpuShares() != 512 {
		b.Errorf("status tells %v", r)
	}
	if _, err := b.UpdateContainerResources(b.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{CpuQuota: -7}}); status.Code(err) != codes.InvalidArgument {
		b.Errorf("a nonsensical update: %v", err)
	}
}

func streamedLists(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for range 3 {
		b.CreateIn(pod, pc, b.ContainerConfig("x"))
	}
	stream, err := b.StreamContainers(b.Context(), &runtimeapi.StreamContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: pod}})
	if err != nil {
		b.Fatal(err)
	}
	seen := map[string]bool{}
	for {
		p, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range p.GetContainers() {
			if seen[c.GetId()] {
				b.Errorf("%s came twice", c.GetId())
			}
			seen[c.GetId()] = true
		}
	}
	if len(seen) != 3 {
		b.Errorf("%d containers streamed, want 3", len(seen))
	}
}
