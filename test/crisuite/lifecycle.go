package crisuite

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var lifecycleSpecs = []Spec{
	{"version and status", false, versionAndStatus},
	{"a pod keeps what it was given", false, podKeepsItsConfig},
	{"a container lives its life", false, containerLife},
	{"calls on what is not there", false, absent},
	{"stop and remove are idempotent", false, idempotentEnd},
	{"a repeated creation gets the first one's result", false, repeatedCreation},
	{"a creation repeated after the client's time was over gets the first one's result", false, lateCreation},
	{"lists filter", false, listFilters},
	{"exit codes and reasons", true, exitCodes},
	{"a stop signal is the image's, the request's or KILL", true, stopSignals},
	{"resources are updated live", false, updateResources},
	{"streamed lists equal plain ones", false, streamedLists},
	{"what is not implemented says so", false, notImplemented},
}

func versionAndStatus(b *Bench) {
	v, err := b.Version(b.Context(), &runtimeapi.VersionRequest{})
	if err != nil || v.GetRuntimeName() == "" || v.GetRuntimeApiVersion() != "v1" {
		b.Errorf("version %v, %v", v, err)
	}
	st, err := b.Client.Status(b.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil || len(st.GetInfo()) == 0 {
		b.Fatalf("status %v, %v", st, err)
	}
	got := map[string]bool{}
	for _, c := range st.GetStatus().GetConditions() {
		got[c.GetType()] = c.GetStatus()
	}
	if !got["RuntimeReady"] || !got["NetworkReady"] {
		b.Errorf("conditions %v", st.GetStatus().GetConditions())
	}
	if _, err := b.RuntimeConfig(b.Context(), &runtimeapi.RuntimeConfigRequest{}); err != nil {
		b.Error(err)
	}
}

func podKeepsItsConfig(b *Bench) {
	cfg := b.PodConfig()
	id := b.RunPod(cfg)
	resp, err := b.PodSandboxStatus(b.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		b.Fatal(err)
	}
	st := resp.GetStatus()
	if !proto.Equal(st.GetMetadata(), cfg.GetMetadata()) || st.GetLabels()["suite"] != cfg.GetLabels()["suite"] || st.GetAnnotations()["note"] != "x" || st.GetCreatedAt() <= 0 {
		b.Errorf("status %v", st)
	}
	if st.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || st.GetNetwork().GetIp() == "" || len(resp.GetInfo()) == 0 {
		b.Errorf("status %v, info %v", st, resp.GetInfo())
	}
	if _, err := b.StopPodSandbox(b.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		b.Fatal(err)
	}
	resp, err = b.PodSandboxStatus(b.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil || resp.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || resp.GetStatus().GetNetwork().GetIp() != "" {
		b.Errorf("after the stop: %v, %v", resp.GetStatus(), err)
	}
}

func containerLife(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	cfg := b.ContainerConfig("exec sleep 1000")
	id := b.CreateIn(pod, pc, cfg)
	st := b.Status(id)
	if st.GetState() != runtimeapi.ContainerState_CONTAINER_CREATED || st.GetStartedAt() != 0 || st.GetFinishedAt() != 0 || !proto.Equal(st.GetMetadata(), cfg.GetMetadata()) {
		b.Errorf("created: %v", st)
	}
	if _, err := b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	if st = b.Status(id); st.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING || st.GetStartedAt() < st.GetCreatedAt() {
		b.Errorf("running: %v", st)
	}
	if _, err := b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); status.Code(err) != codes.FailedPrecondition {
		b.Errorf("a second start: %v", err)
	}
	if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	if st = b.Status(id); st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 137 || st.GetFinishedAt() < st.GetStartedAt() || st.GetReason() != "Error" {
		b.Errorf("exited: %v", st)
	}
	if st.GetImageId() == "" || st.GetImageRef() == "" || st.GetImage().GetImage() == "" || st.GetLogPath() == "" {
		b.Errorf("status lacks image or log: %v", st)
	}
	if _, err := b.RemoveContainer(b.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	if _, err := b.ContainerStatus(b.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id}); status.Code(err) != codes.NotFound {
		b.Errorf("status after removal: %v", err)
	}
}

func absent(b *Bench) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	ctx := b.Context()
	for name, err := range map[string]error{
		"StartContainer":     second(b.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})),
		"ContainerStatus":    second(b.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})),
		"ContainerStats":     second(b.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})),
		"ExecSync":           second(b.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"x"}})),
		"Exec":               second(b.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"x"}, Stdout: true})),
		"Attach":             second(b.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdout: true})),
		"ReopenContainerLog": second(b.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})),
		"Update":             second(b.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id})),
		"PodSandboxStatus":   second(b.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})),
		"PodSandboxStats":    second(b.PodSandboxStats(ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id})),
		"PortForward":        second(b.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{80}})),
		"CreateContainer":    second(b.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: b.ContainerConfig("x")})),
	} {
		if status.Code(err) != codes.NotFound {
			b.Errorf("%s of what is not there: %v, want NotFound", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func idempotentEnd(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	ctx := b.Context()
	for range 2 {
		if _, err := b.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
			b.Error(err)
		}
	}
	for range 2 {
		if _, err := b.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
			b.Error(err)
		}
	}
	// A running container does not keep its pod from being stopped and removed.
	b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	for range 2 {
		if _, err := b.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
			b.Error(err)
		}
	}
	for range 2 {
		b.RemovePod(pod)
	}
}

func repeatedCreation(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	if again := b.RunPod(pc); again != pod {
		b.Errorf("a repeated RunPodSandbox made another pod")
	}
	cfg := b.ContainerConfig("exec sleep 1000")
	id := b.CreateIn(pod, pc, cfg)
	if again := b.CreateIn(pod, pc, cfg); again != id {
		b.Errorf("a repeated CreateContainer made another container")
	}
	if _, err := b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	if _, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc}); status.Code(err) != codes.AlreadyExists {
		b.Errorf("a creation under a running container's name: %v", err)
	}
}

// lateCreation gives each creation too little time, more from try to try: in the
// end the server has begun and not ended when the client leaves. What the client
// gets when it asks again was made before it did, and is the only one.
func lateCreation(b *Bench) {
	b.late("pod", func(ctx context.Context, pc *runtimeapi.PodSandboxConfig) (string, error) {
		resp, err := b.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pc})
		return resp.GetPodSandboxId(), err
	}, func(pc *runtimeapi.PodSandboxConfig, id string) (created int64, n int) {
		b.Cleanup(func() { b.RemovePod(id) })
		list, err := b.ListPodSandbox(b.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: pc.GetLabels()}})
		if err != nil {
			b.Fatal(err)
		}
		return list.GetItems()[0].GetCreatedAt(), len(list.GetItems())
	})
	own := b.PodConfig()
	pod := b.RunPod(own)
	b.late("container", func(ctx context.Context, pc *runtimeapi.PodSandboxConfig) (string, error) {
		cfg := b.ContainerConfig("x", func(c *runtimeapi.ContainerConfig) {
			c.Metadata.Name, c.LogPath, c.Labels = pc.Metadata.Name, "", pc.Labels
		})
		resp, err := b.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: own})
		return resp.GetContainerId(), err
	}, func(pc *runtimeapi.PodSandboxConfig, _ string) (created int64, n int) {
		list, err := b.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: pc.GetLabels()}})
		if err != nil {
			b.Fatal(err)
		}
		return list.GetContainers()[0].GetCreatedAt(), len(list.GetContainers())
	})
}

// late tries until a creation was cut off under way; a model, which makes all at
// once, cuts off none.
func (b *Bench) late(what string, create func(context.Context, *runtimeapi.PodSandboxConfig) (string, error), look func(pc *runtimeapi.PodSandboxConfig, id string) (created int64, n int)) {
	b.Helper()
	for short := time.Millisecond; short < 5*time.Second; short += short/8 + time.Millisecond {
		pc := b.PodConfig()
		ctx, cancel := context.WithTimeout(b.Context(), short)
		first, cut := create(ctx, pc)
		cancel()
		asked := time.Now().UnixNano()
		id, err := create(b.Context(), pc)
		if err != nil || cut == nil && id != first {
			b.Fatalf("the %s asked for again: %q, %v; the first time %q, %v", what, id, err, first, cut)
		}
		created, n := look(pc, id)
		if n != 1 {
			b.Fatalf("%d of one %s", n, what)
		}
		if created < asked && (cut != nil || !b.Target.Processes) {
			return
		}
	}
	b.Errorf("no %s was ever found that was begun before it was asked for again", what)
}

func listFilters(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	running := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	created := b.CreateIn(pod, pc, b.ContainerConfig("x", func(c *runtimeapi.ContainerConfig) { c.Labels["l"] = "other" }))
	for name, c := range map[string]struct {
		filter *runtimeapi.ContainerFilter
		want   map[string]bool
	}{
		"pod":     {&runtimeapi.ContainerFilter{PodSandboxId: pod}, map[string]bool{running: true, created: true}},
		"id":      {&runtimeapi.ContainerFilter{Id: created}, map[string]bool{created: true}},
		"prefix":  {&runtimeapi.ContainerFilter{Id: created[:13]}, map[string]bool{created: true}},
		"state":   {&runtimeapi.ContainerFilter{PodSandboxId: pod, State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}, map[string]bool{running: true}},
		"label":   {&runtimeapi.ContainerFilter{PodSandboxId: pod, LabelSelector: map[string]string{"l": "other"}}, map[string]bool{created: true}},
		"nothing": {&runtimeapi.ContainerFilter{PodSandboxId: pod, LabelSelector: map[string]string{"l": ""}}, map[string]bool{}},
	} {
		resp, err := b.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{Filter: c.filter})
		if err != nil {
			b.Fatal(err)
		}
		got := map[string]bool{}
		for _, x := range resp.GetContainers() {
			got[x.GetId()] = true
		}
		if len(got) != len(c.want) {
			b.Errorf("filter by %s gives %v, want %v", name, got, c.want)
		}
		for id := range c.want {
			if !got[id] {
				b.Errorf("filter by %s misses %s", name, id)
			}
		}
	}
	pods, err := b.ListPodSandbox(b.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: pc.GetLabels()}})
	if err != nil || len(pods.GetItems()) != 1 || pods.GetItems()[0].GetId() != pod {
		b.Errorf("pods by label: %v, %v", pods, err)
	}
}

func notImplemented(b *Bench) {
	ctx := b.Context()
	for name, err := range map[string]error{
		"CheckpointContainer": second(b.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{})),
		"CheckpointPod":       second(b.CheckpointPod(ctx, &runtimeapi.CheckpointPodRequest{})),
		"RestorePod":          second(b.RestorePod(ctx, &runtimeapi.RestorePodRequest{})),
	} {
		if status.Code(err) != codes.Unimplemented {
			b.Errorf("%s: %v, want Unimplemented", name, err)
		}
	}
}
