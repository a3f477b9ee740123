package crisuite

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var statsSpecs = []Spec{
	{"container stats", true, containerStats},
	{"pressure, where the kernel tells it", true, pressure},
	{"pod stats", true, podStats},
	{"metrics", true, metrics},
}

var eventSpecs = []Spec{
	{"events tell the life of pod and container", false, events},
}

var imageSpecs = []Spec{
	{"images are listed, described and pulled", false, images},
}

func containerStats(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo up; exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}
	}))
	b.awaitLog(id, "up")
	resp, err := b.ContainerStats(b.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		b.Fatal(err)
	}
	st := resp.GetStats()
	if st.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || st.GetMemory().GetWorkingSetBytes().GetValue() == 0 || st.GetCpu().GetTimestamp() == 0 ||
		st.GetMemory().GetAvailableBytes().GetValue() == 0 || st.GetWritableLayer().GetFsId().GetMountpoint() == "" || st.GetAttributes().GetId() != id {
		b.Errorf("stats %v", st)
	}
	list, err := b.ListContainerStats(b.Context(), &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{PodSandboxId: pod}})
	if err != nil || len(list.GetStats()) != 1 {
		b.Errorf("list %v, %v", list, err)
	}
	b.Sh(id, "head -c 3000000 /dev/zero > /file; sync")
	b.eventually("the written file to count", func() bool {
		resp, err := b.ContainerStats(b.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
		return err == nil && resp.GetStats().GetWritableLayer().GetUsedBytes().GetValue() >= 3000000
	})
}

// pressure holds the stats against the kernel's own files of the container's
// cgroup, as the container sees them.
func pressure(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	resp, err := b.ContainerStats(b.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		b.Fatal(err)
	}
	podStats, err := b.PodSandboxStats(b.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: pod})
	if err != nil {
		b.Fatal(err)
	}
	st, p := resp.GetStats(), podStats.GetStats().GetLinux()
	for resource, told := range map[string][]*runtimeapi.PsiStats{
		"cpu": {st.GetCpu().GetPsi(), p.GetCpu().GetPsi()}, "memory": {st.GetMemory().GetPsi(), p.GetMemory().GetPsi()}, "io": {st.GetIo().GetPsi(), p.GetIo().GetPsi()},
	} {
		there := b.ShCode(id, "grep -q some /sys/fs/cgroup/"+resource+".pressure 2>/dev/null").GetExitCode() == 0
		for i, psi := range told {
			if (psi != nil) != there {
				b.Errorf("%s of %s: %v; the kernel tells it: %v", resource, []string{"container", "pod"}[i], psi, there)
			}
			if psi != nil && (psi.GetSome() == nil || psi.GetFull() == nil) {
				b.Errorf("%s: %v lacks a part", resource, psi)
			}
		}
	}
}

func podStats(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	resp, err := b.PodSandboxStats(b.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: pod})
	if err != nil {
		b.Fatal(err)
	}
	l := resp.GetStats().GetLinux()
	if l.GetMemory().GetUsageBytes().GetValue() == 0 || len(l.GetContainers()) != 1 || l.GetNetwork().GetDefaultInterface().GetName() != "eth0" || l.GetProcess().GetProcessCount().GetValue() == 0 {
		b.Errorf("stats %v", l)
	}
	list, err := b.ListPodSandboxStats(b.Context(), &runtimeapi.ListPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{Id: pod}})
	if err != nil || len(list.GetStats()) != 1 {
		b.Errorf("list %v, %v", list, err)
	}
}

func metrics(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	desc, err := b.ListMetricDescriptors(b.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		b.Fatal(err)
	}
	keys := map[string]int{}
	for _, d := range desc.GetDescriptors() {
		keys[d.GetName()] = len(d.GetLabelKeys())
	}
	resp, err := b.ListPodSandboxMetrics(b.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range resp.GetPodMetrics() {
		if p.GetPodSandboxId() != pod {
			continue
		}
		if len(p.GetMetrics()) == 0 || len(p.GetContainerMetrics()) != 1 {
			b.Errorf("%d pod metrics, %d containers", len(p.GetMetrics()), len(p.GetContainerMetrics()))
		}
		for _, m := range p.GetMetrics() {
			if keys[m.GetName()] != len(m.GetLabelValues()) {
				b.Errorf("%s has %d labels, its descriptor %d", m.GetName(), len(m.GetLabelValues()), keys[m.GetName()])
			}
		}
		return
	}
	b.Error("the pod has no metrics")
}

func events(b *Bench) {
	stream, err := b.GetContainerEvents(b.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		b.Fatal(err)
	}
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exit 3"))
	b.Await(id)
	b.RemovePod(pod)
	const (
		created = runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
		started = runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
		stopped = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
		deleted = runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
	)
	want := map[string][]runtimeapi.ContainerEventType{pod: {created, started, stopped, deleted}, id: {created, started, stopped, deleted}}
	for len(want[pod])+len(want[id]) > 0 {
		e, err := stream.Recv()
		if err != nil {
			b.Fatal(err)
		}
		due, ours := want[e.GetContainerId()]
		if !ours {
			continue
		}
		if len(due) == 0 || due[0] != e.GetContainerEventType() {
			b.Fatalf("event %v where %v were due", e, due)
		}
		if e.GetPodSandboxStatus().GetId() != pod || e.GetCreatedAt() == 0 {
			b.Errorf("event without the pod's status: %v", e)
		}
		if e.GetContainerId() == id && e.GetContainerEventType() == stopped {
			if st := e.GetContainersStatuses(); len(st) != 1 || st[0].GetExitCode() != 3 {
				b.Errorf("the end is told with %v", st)
			}
		}
		want[e.GetContainerId()] = due[1:]
	}
}

func images(b *Bench) {
	ctx := b.Context()
	st, err := b.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: b.Target.Image}, Verbose: true})
	if err != nil || st.GetImage().GetSize() == 0 || len(st.GetInfo()) == 0 {
		b.Fatalf("status %v, %v", st, err)
	}
	pulled, err := b.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: b.Target.Image}})
	if err != nil || pulled.GetImageRef() != st.GetImage().GetId() {
		b.Errorf("pull gives %v, %v; the image's id is %s", pulled, err, st.GetImage().GetId())
	}
	list, err := b.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: b.Target.Image}}})
	if err != nil || len(list.GetImages()) != 1 {
		b.Errorf("list %v, %v", list, err)
	}
	if st, err := b.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "no.such/image:1"}}); err != nil || st.GetImage() != nil {
		b.Errorf("an image that is not there: %v, %v", st, err)
	}
	if _, err := b.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "no.such/image:1"}}); err != nil {
		b.Errorf("removing an image that is not there: %v", err)
	}
	fs, err := b.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(fs.GetImageFilesystems()) == 0 || fs.GetImageFilesystems()[0].GetUsedBytes().GetValue() == 0 {
		b.Errorf("filesystem %v, %v", fs, err)
	}
}
