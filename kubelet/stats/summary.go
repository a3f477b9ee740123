package stats

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/nodestatus"
)

// Summary is the page /stats/summary.
func (s *Source) Summary() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum, err := s.Read(r.Context())
		if err != nil {
			http.Error(w, criclient.Message(err), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(sum) // the client may be gone
	})
}

// ReadNode returns what the node as a whole uses and has left. It does not ask about pods.
func (s *Source) ReadNode(ctx context.Context) (api.NodeStats, error) {
	n := s.node()
	machine, err := nodestatus.ReadMachine()
	if err != nil {
		return api.NodeStats{}, err
	}
	out := api.NodeStats{
		NodeName: s.cfg.Node, StartTime: metav1.NewTime(s.began), CPU: cpu(n), Memory: memory(n), Fs: s.fs(s.cfg.Root),
	}
	free := memoryAvailable(uint64(machine.MemoryBytes), n)
	out.Memory.AvailableBytes = &free
	out.Runtime = s.images(ctx)
	return out, nil
}

// Read returns what the node and its pods use, in the kubelet's own API type.
func (s *Source) Read(ctx context.Context) (*api.Summary, error) {
	pods, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	node, err := s.ReadNode(ctx)
	if err != nil {
		return nil, err
	}
	out, measured := &api.Summary{Node: node}, s.measure(ctx)
	for _, p := range pods {
		ps := api.PodStats{
			PodRef: api.PodReference{Name: p.name, Namespace: p.namespace, UID: p.uid},
			CPU:    cpu(p.usage), Memory: memory(p.usage),
		}
		if p.object != nil && p.object.Status.StartTime != nil {
			ps.StartTime = *p.object.Status.StartTime
		}
		if p.hasNet {
			ps.Network = &api.NetworkStats{Time: metav1.NewTime(p.at), InterfaceStats: api.InterfaceStats{
				Name: p.iface, RxBytes: &p.rx, TxBytes: &p.tx, RxErrors: &p.rxErrs, TxErrors: &p.txErrs}}
		}
		if p.hasPids {
			ps.ProcessStats = &api.ProcessStats{ProcessCount: &p.pids}
		}
		for _, c := range p.containers {
			cs := api.ContainerStats{Name: c.name, StartTime: metav1.NewTime(c.started), CPU: cpu(c.usage), Memory: memory(c.usage)}
			if c.hasDisk {
				cs.Rootfs = &api.FsStats{Time: metav1.NewTime(c.at), UsedBytes: &c.disk, InodesUsed: &c.inodes}
			}
			ps.Containers = append(ps.Containers, cs)
		}
		ps.VolumeStats = volumes(p.namespace, measured[types.UID(p.uid)])
		out.Pods = append(out.Pods, ps)
	}
	return out, nil
}

func cpu(u usage) *api.CPUStats {
	return &api.CPUStats{Time: metav1.NewTime(u.at), UsageNanoCores: &u.cpuRate, UsageCoreNanoSeconds: &u.cpuNano}
}

func memory(u usage) *api.MemoryStats {
	return &api.MemoryStats{
		Time: metav1.NewTime(u.at), UsageBytes: &u.memory, WorkingSetBytes: &u.working, RSSBytes: &u.rss,
		PageFaults: &u.faults, MajorPageFaults: &u.majorFaults,
	}
}

func (s *Source) fs(path string) *api.FsStats {
	total, free, inodes, inodesFree, err := nodestatus.Disk(path)
	if err != nil {
		return nil
	}
	used, inodesUsed := total-free, inodes-inodesFree
	return &api.FsStats{
		Time: metav1.NewTime(time.Now()), CapacityBytes: &total, AvailableBytes: &free, UsedBytes: &used,
		Inodes: &inodes, InodesFree: &inodesFree, InodesUsed: &inodesUsed,
	}
}

// images is the filesystem of images, as the runtime says where it is.
func (s *Source) images(ctx context.Context) *api.RuntimeStats {
	info, err := s.cfg.CRI.Image.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		return nil
	}
	at := info.GetImageFilesystems()[0]
	fs := s.fs(at.GetFsId().GetMountpoint())
	if fs == nil {
		return nil
	}
	used, inodes := at.GetUsedBytes().GetValue(), at.GetInodesUsed().GetValue()
	fs.UsedBytes, fs.InodesUsed = &used, &inodes
	return &api.RuntimeStats{ImageFs: fs, ContainerFs: fs}
}
