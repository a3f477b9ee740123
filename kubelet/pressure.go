package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"
	"k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"keelson.dev/keelson/kubelet/eviction"
	"keelson.dev/keelson/kubelet/nodestatus"
	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/podworker"
	"keelson.dev/keelson/kubelet/qos"
	"keelson.dev/keelson/kubelet/source"
	"keelson.dev/keelson/volume/mount"
)

// checkPressure compares what is left of the node's resources with the thresholds, sets the node's conditions, and
// evicts one pod at a time: the next look shows whether it was enough.
func (k *Kubelet) checkPressure(ctx context.Context) {
	k.checkLimits(ctx)
	node, err := k.usage.ReadNode(ctx)
	if err != nil {
		return
	}
	levels := k.levels(node)
	pressure := k.pressure(levels, time.Now())
	if why := k.disks.look([]string{k.cfg.Paths.Root, k.cfg.Paths.PodLogs}, time.Now(), k.cfg.Eviction.PressureCondition); why != "" {
		pressure.Disk = why
	}
	if dir := k.readOnly(); dir != "" {
		pressure.Disk = fmt.Sprintf("the filesystem of %s is read-only: nothing of a pod can be written; look for its errors in the kernel's log and mount it for writing", dir)
	}
	k.parts.node.SetPressure(pressure)
	if !slices.ContainsFunc(levels, eviction.Level.Short) {
		return // the usual case costs no question to the runtime about its pods
	}
	sum, err := k.usage.Read(ctx)
	if err != nil {
		return // a runtime that does not answer is reported by the node's status
	}
	onDisk := func(l eviction.Level) bool {
		return l.Short() && (l.Signal == eviction.Imagefs || l.Signal == eviction.Nodefs || l.Signal == eviction.Inodes)
	}
	short, victim := eviction.Decide(levels, k.usages(sum, slices.ContainsFunc(levels, onDisk)))
	if onDisk(*short) {
		// Room that nobody uses goes before anybody's pod.
		before, free, _ := k.imageDisk(ctx)
		k.removeImages(ctx, before)
		if _, now, ok := k.imageDisk(ctx); ok && now > free {
			return
		}
	}
	if victim == nil {
		k.log.Warn("the node is short of a resource and no pod may be evicted", "signal", short.Signal, "left", short.Left)
		return
	}
	k.evict(victim.Pod, victim.Message)
}

// readOnly names a directory of ours whose filesystem takes no writes, as the kernel leaves one after an error; "" if all do.
func (k *Kubelet) readOnly() string {
	for _, dir := range []string{k.cfg.Paths.Root, k.cfg.Paths.PodLogs} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_RDONLY != 0 {
			return dir
		}
	}
	return ""
}

// evict ends a pod as Failed.
func (k *Kubelet) evict(pod *corev1.Pod, message string) {
	k.log.Warn("evicting pod", "pod", full(pod), "why", message)
	k.parts.exec.Event(pod, corev1.EventTypeWarning, "Evicted", "%s", message)
	k.parts.workers.End(pod.UID, plan.Ending{Since: time.Now(), Grace: 0, Reason: "Evicted", Message: message})
}

// levels reads what is left. A negative threshold switches its signal off.
func (k *Kubelet) levels(node v1alpha1.NodeStats) []eviction.Level {
	var out []eviction.Level
	e := k.cfg.Eviction
	if m := node.Memory; e.MemoryAvailable > 0 && m != nil && m.AvailableBytes != nil {
		out = append(out, eviction.Level{Signal: eviction.Memory, Left: *m.AvailableBytes, Threshold: uint64(e.MemoryAvailable)})
	}
	share := func(s eviction.Signal, percent float64, left, total *uint64) {
		if percent > 0 && left != nil && total != nil && *total > 0 {
			out = append(out, eviction.Level{Signal: s, Left: *left, Threshold: uint64(percent / 100 * float64(*total))})
		}
	}
	if f := node.Fs; f != nil {
		share(eviction.Nodefs, e.NodefsAvailable, f.AvailableBytes, f.CapacityBytes)
		share(eviction.Inodes, e.NodefsInodesFree, f.InodesFree, f.Inodes)
	}
	if r := node.Runtime; r != nil && r.ImageFs != nil {
		share(eviction.Imagefs, e.ImagefsAvailable, r.ImageFs.AvailableBytes, r.ImageFs.CapacityBytes)
	}
	if used, most, ok := processes(); ok {
		left := most - min(used, most)
		share(eviction.PIDs, e.PidsAvailable, &left, &most)
	}
	return out
}

// processes are how many tasks there are and may be.
func processes() (used, most uint64, ok bool) {
	b, err := os.ReadFile("/proc/loadavg") // "0.1 0.2 0.3 2/345 6789": running/all
	if err != nil {
		return 0, 0, false
	}
	f := strings.Fields(string(b))
	if len(f) < 4 {
		return 0, 0, false
	}
	_, all, _ := strings.Cut(f[3], "/")
	used, err = strconv.ParseUint(all, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	for _, p := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && (most == 0 || n < most) {
			most = n
		}
	}
	return used, most, most > 0
}

// pressure turns levels into conditions; one that held stays for a while, so that it does not flap while pods come
// and go around the threshold. Only the eviction goroutine calls it.
func (k *Kubelet) pressure(levels []eviction.Level, now time.Time) nodestatus.Pressure {
	for _, l := range levels {
		if l.Short() {
			k.shortAt[l.Signal] = now
		}
	}
	say := func(signals ...eviction.Signal) string {
		for _, s := range signals {
			if at, was := k.shortAt[s]; was && now.Sub(at) < k.cfg.Eviction.PressureCondition {
				return fmt.Sprintf("kubelet has %s below its threshold", s)
			}
		}
		return ""
	}
	return nodestatus.Pressure{
		Memory: say(eviction.Memory), Disk: say(eviction.Nodefs, eviction.Inodes, eviction.Imagefs), PID: say(eviction.PIDs),
	}
}

// byUID are a summary's pods.
func byUID(sum *v1alpha1.Summary) map[string]*v1alpha1.PodStats {
	out := map[string]*v1alpha1.PodStats{}
	for i := range sum.Pods {
		out[sum.Pods[i].PodRef.UID] = &sum.Pods[i]
	}
	return out
}

// usages is what each pod that may be evicted uses; its disk, which costs a walk, only if it matters.
func (k *Kubelet) usages(sum *v1alpha1.Summary, disk bool) []eviction.Usage {
	pods := byUID(sum)
	var out []eviction.Usage
	k.parts.workers.Each(func(r podworker.Request, _ podworker.State) {
		if r.Ending != nil {
			return
		}
		u := eviction.Usage{Pod: r.Pod, Immune: qos.Critical(r.Pod) || source.IsStatic(r.Pod)}
		if s := pods[string(r.Pod.UID)]; s != nil {
			if s.Memory != nil && s.Memory.WorkingSetBytes != nil {
				u.Memory = *s.Memory.WorkingSetBytes
			}
			if s.ProcessStats != nil && s.ProcessStats.ProcessCount != nil {
				u.PIDs = *s.ProcessStats.ProcessCount
			}
			for _, c := range s.Containers {
				if c.Rootfs != nil && c.Rootfs.UsedBytes != nil {
					u.Disk += *c.Rootfs.UsedBytes
				}
			}
			u.Disk += scratch(r.Pod, s.VolumeStats)
		}
		out = append(out, u)
	})
	return out
}

// scratch is what a pod's emptyDirs take of the node's disk, in bytes.
func scratch(pod *corev1.Pod, measured []v1alpha1.VolumeStats) (total uint64) {
	for _, v := range pod.Spec.Volumes {
		for _, m := range measured {
			if v.Name == m.Name && v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault && m.UsedBytes != nil {
				total += *m.UsedBytes
			}
		}
	}
	return total
}

// checkLimits evicts pods that have outgrown their own storage limits. Only those that have limits are measured.
func (k *Kubelet) checkLimits(ctx context.Context) {
	var limits []*corev1.Pod
	k.parts.workers.Each(func(r podworker.Request, s podworker.State) {
		if r.Ending == nil && s == podworker.Syncing && limited(r.Pod) {
			limits = append(limits, r.Pod)
		}
	})
	if len(limits) == 0 {
		return
	}
	pods := map[string]*v1alpha1.PodStats{}
	if sum, err := k.usage.Read(ctx); err == nil { // without it the containers' own layers are not counted this time
		pods = byUID(sum)
	}
	for _, p := range limits {
		all, volumes := k.diskOf(p, pods[string(p.UID)])
		if why := eviction.OverLimit(p, all, volumes); why != "" {
			k.evict(p, why)
		}
	}
}

// diskOf is the local storage that a pod takes, in bytes: its containers' layers, its logs, its emptyDirs (each by name too;
// those in memory are not storage), and what containers write into the files that the kubelet lends them.
func (k *Kubelet) diskOf(p *corev1.Pod, s *v1alpha1.PodStats) (all uint64, volumes map[string]uint64) {
	dir := k.parts.exec.PodDir(p.UID)
	all = diskUse(k.parts.exec.LogDir(p)) + diskUse(filepath.Join(dir, "etc-hosts")) + diskUse(filepath.Join(dir, "containers"))
	volumes = map[string]uint64{}
	for _, v := range p.Spec.Volumes {
		if v.EmptyDir == nil {
			continue
		}
		n := diskUse(filepath.Join(dir, "volumes", "kubernetes.io~empty-dir", v.Name))
		volumes[v.Name] = n
		if v.EmptyDir.Medium == "" {
			all += n
		}
	}
	if s == nil {
		return all, volumes
	}
	for _, c := range s.Containers {
		if c.Rootfs != nil && c.Rootfs.UsedBytes != nil {
			all += *c.Rootfs.UsedBytes
		}
	}
	return all, volumes
}

func limited(p *corev1.Pod) bool {
	for _, v := range p.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil {
			return true
		}
	}
	_, has := helpers.PodLimits(p, helpers.PodResourcesOptions{})[corev1.ResourceEphemeralStorage]
	return has
}

// diskUse is the space that a file or tree takes on disk, in bytes.
func diskUse(path string) uint64 {
	n, _, err := mount.Size(path)
	if err != nil {
		return 0 // nobody is evicted for what cannot be seen
	}
	return n
}
