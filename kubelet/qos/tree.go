package qos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Config of a Tree.
type Config struct {
	// Root is the cgroup that holds kubepods, as a cgroupfs path; "/" by default. Tests use one of their own.
	Root string
	// Systemd makes the cgroups slices of systemd's (systemd.slice(5)) instead of directories of ours.
	Systemd bool
	// AllocatableMilliCPU and AllocatableMemory (bytes) bound all pods together; zero leaves that one unbounded.
	AllocatableMilliCPU, AllocatableMemory int64
	// PidsMax bounds the number of processes of one pod; zero for no bound.
	PidsMax int64
	// SingleProcessOOMKill leaves a container of which the kernel killed one process for memory to the others.
	SingleProcessOOMKill bool
}

// Tree makes and removes the cgroups above the containers.
type Tree struct {
	cfg Config
	v2  bool

	mu        sync.Mutex
	burstable map[types.UID]int64 // millicores asked for by Burstable pods; guarded by mu
}

// NewTree makes a Tree; Setup makes its upper levels.
func NewTree(cfg Config) *Tree {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	return &Tree{cfg: cfg, v2: cgroups.IsCgroup2UnifiedMode(), burstable: map[types.UID]int64{}}
}

// Unified tells whether cgroup v2 is the only hierarchy.
func (t *Tree) Unified() bool { return t.v2 }

// OOMGroup tells whether a container ends whole when the kernel kills one of its processes for memory.
func (t *Tree) OOMGroup() bool { return t.v2 && !t.cfg.SingleProcessOOMKill }

// Setup makes kubepods and the two class cgroups. It may be called again.
func (t *Tree) Setup() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	top := &cgroups.Resources{CpuShares: 0, Memory: t.cfg.AllocatableMemory}
	if t.cfg.AllocatableMilliCPU > 0 {
		top.CpuShares = uint64(Shares(t.cfg.AllocatableMilliCPU))
	}
	if err := t.write(t.group(), top); err != nil {
		return err
	}
	if err := t.write(t.group("besteffort"), &cgroups.Resources{CpuShares: minShares}); err != nil {
		return err
	}
	return t.writeBurstable()
}

// UseSystemd chooses the driver again, before Setup: the runtime's must be the same, and only it knows.
func (t *Tree) UseSystemd(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cfg.Systemd = on
}

// Driver is the cgroup driver, as the kubelet's configuration names it.
func (t *Tree) Driver() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cfg.Systemd {
		return "systemd"
	}
	return "cgroupfs"
}

// Parent is the path of the pod's cgroup, which CRI knows as cgroup_parent.
func (t *Tree) Parent(pod *corev1.Pod) string { return t.pod(classes[Class(pod)], pod.UID) }

// classes are the names of the QoS classes' cgroups; Guaranteed pods are beside them.
var classes = map[corev1.PodQOSClass]string{corev1.PodQOSBurstable: "burstable", corev1.PodQOSBestEffort: "besteffort"}

func (t *Tree) pod(class string, uid types.UID) string { return t.group(class, "pod"+string(uid)) }

// Ensure makes the pod's cgroup with its limits, or brings the limits up to date.
func (t *Tree) Ensure(pod *corev1.Pod) error {
	shares, quota, memory := Pod(pod)
	r := &cgroups.Resources{CpuShares: uint64(shares), CpuQuota: quota, Memory: memory}
	if memory == 0 {
		r.Memory = -1 // an older limit, if there is one, goes
	}
	if quota == 0 {
		r.CpuQuota = -1
	} else {
		r.CpuPeriod = cpuPeriod
	}
	if t.cfg.PidsMax > 0 {
		r.PidsLimit = &t.cfg.PidsMax
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.write(t.Parent(pod), r); err != nil {
		return err
	}
	if Class(pod) != corev1.PodQOSBurstable {
		return nil
	}
	t.burstable[pod.UID] = shares * 1000 / 1024
	return t.writeBurstable()
}

// Widen takes the limits off the pod's cgroup while its containers' limits change; Ensure puts the new ones on.
func (t *Tree) Widen(pod *corev1.Pod) error {
	shares, _, _ := Pod(pod)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.write(t.Parent(pod), &cgroups.Resources{CpuShares: uint64(shares), CpuQuota: -1, Memory: -1})
}

// Remove removes the pod's cgroup wherever in the tree it is. It may be called again, or without Ensure. It fails
// while a process is left in it.
func (t *Tree) Remove(uid types.UID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, class := range []string{"", "burstable", "besteffort"} {
		dir := t.pod(class, uid)
		for _, root := range hierarchies(t.v2) {
			if err := removeAll(filepath.Join(root, dir)); err != nil {
				errs = append(errs, fmt.Errorf("remove cgroup of pod %s: %w", uid, err))
			}
		}
		errs = append(errs, t.stop(dir))
	}
	if _, was := t.burstable[uid]; was {
		delete(t.burstable, uid)
		errs = append(errs, t.writeBurstable())
	}
	return errors.Join(errs...)
}

// Pods lists the UIDs that have a pod cgroup: whatever of them nobody wants is an orphan.
func (t *Tree) Pods() []types.UID {
	roots := hierarchies(t.v2)
	seen := map[types.UID]bool{}
	var out []types.UID
	for _, root := range roots {
		for _, class := range []string{"", "burstable", "besteffort"} {
			entries, err := os.ReadDir(filepath.Join(root, t.group(class)))
			if err != nil {
				continue
			}
			for _, e := range entries {
				uid, is := t.uidOf(class, e.Name())
				if is && e.IsDir() && !seen[types.UID(uid)] {
					seen[types.UID(uid)] = true
					out = append(out, types.UID(uid))
				}
			}
		}
	}
	return out
}

// writeBurstable gives the Burstable class the weight of what its pods ask for. Preconditions: mu is held.
func (t *Tree) writeBurstable() error {
	var milli int64
	for _, m := range t.burstable {
		milli += m
	}
	return t.write(t.group("burstable"), &cgroups.Resources{CpuShares: uint64(Shares(milli))})
}

// write makes one cgroup and sets its values. Devices are the containers' affair.
func (t *Tree) write(dir string, r *cgroups.Resources) error {
	r.SkipDevices, r.SkipFreezeOnSet = true, true
	if t.v2 {
		r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(r.CpuShares)
		r.CpuShares = 0
	}
	m, err := t.manager(&cgroups.Cgroup{Path: dir, Resources: r})
	if err != nil {
		return fmt.Errorf("open cgroup %s: %w", dir, err)
	}
	if err := m.Apply(-1); err != nil {
		return fmt.Errorf("make cgroup %s: %w", dir, err)
	}
	if err := m.Set(r); err != nil {
		return fmt.Errorf("set limits of cgroup %s: %w", dir, err)
	}
	return nil
}

// manager picks the library's writer for the driver and the hierarchy in use.
func (t *Tree) manager(c *cgroups.Cgroup) (cgroups.Manager, error) {
	if t.cfg.Systemd {
		return t.slice(c)
	}
	if t.v2 {
		return fs2.NewManager(c, "")
	}
	return fs.NewManager(c, nil)
}

// hierarchies are the mount points under which a cgroup path lives.
func hierarchies(v2 bool) []string {
	const root = "/sys/fs/cgroup"
	if v2 {
		return []string{root}
	}
	entries, _ := os.ReadDir(root)
	var out []string
	for _, e := range entries {
		if e.IsDir() { // symlinks such as cpu -> cpu,cpuacct are the same hierarchy again
			out = append(out, filepath.Join(root, e.Name()))
		}
	}
	return out
}

// removeAll removes a cgroup directory and those below it, deepest first; files in it are the kernel's.
func removeAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
