package nodestatus

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/device"
)

// Declared are the features that this kubelet has and that pods and clients may need of it (KEP-5328), sorted.
var Declared = []string{
	"ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers",
	"RestartAllContainersOnContainerExits",
}

// maxImages is how many images a node's status lists, the largest ones.
const maxImages = 50

// snapshot is everything that a status is computed from.
type snapshot struct {
	machine  Machine
	disk     uint64
	version  *runtimeapi.VersionResponse
	runtime  *runtimeapi.StatusResponse
	trouble  string // why the runtime did not answer
	images   []*runtimeapi.Image
	pressure Pressure
	leaving  bool
	now      time.Time
}

// snapshot reads the machine and asks the runtime, about its images only if asked to.
func (r *Reporter) snapshot(ctx context.Context, images bool) (snapshot, error) {
	m, err := ReadMachine()
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{machine: m, now: time.Now()}
	if s.disk, _, _, _, err = Disk(r.cfg.Root); err != nil {
		return snapshot{}, err
	}
	r.mu.Lock()
	s.pressure, s.leaving = r.pressure, r.leaving
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s.version, err = r.deps.CRI.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err == nil {
		s.runtime, err = r.deps.CRI.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	}
	if err != nil {
		s.trouble = "container runtime is down: " + criclient.Message(err)
		return s, nil
	}
	if !images {
		return s, nil
	}
	if list, err := r.deps.CRI.Image.ListImages(ctx, &runtimeapi.ListImagesRequest{}); err == nil {
		s.images = list.GetImages()
	}
	return s, nil
}

// initial is the node as it is first registered.
func (r *Reporter) initial(ctx context.Context) (*corev1.Node, error) {
	in, err := r.snapshot(ctx, true)
	if err != nil {
		return nil, err
	}
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: r.cfg.Name, Labels: map[string]string{
			corev1.LabelHostname: r.cfg.Hostname, corev1.LabelOSStable: "linux", corev1.LabelArchStable: in.machine.Arch,
			"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": in.machine.Arch,
		}},
		Spec: corev1.NodeSpec{ProviderID: r.cfg.ProviderID, Taints: r.cfg.Taints, PodCIDRs: r.cfg.PodCIDRs},
	}
	if len(r.cfg.PodCIDRs) > 0 {
		n.Spec.PodCIDR = r.cfg.PodCIDRs[0]
	}
	for k, v := range r.cfg.Labels {
		n.Labels[k] = v
	}
	r.status(n, in, true)
	return n, nil
}

// status fills in the node's status. images says whether the list of images is brought up to date too, which alone
// is no reason to write.
func (r *Reporter) status(n *corev1.Node, in snapshot, images bool) {
	s := &n.Status
	s.Addresses = nil
	for _, ip := range r.cfg.IPs {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: r.cfg.Hostname})
	r.capacity(s, in)
	s.NodeInfo = corev1.NodeSystemInfo{
		MachineID: in.machine.MachineID, SystemUUID: in.machine.SystemUUID, BootID: in.machine.BootID,
		KernelVersion: in.machine.Kernel, OSImage: in.machine.OSImage, OperatingSystem: "linux",
		Architecture: in.machine.Arch, KubeletVersion: r.cfg.Version,
		ContainerRuntimeVersion: s.NodeInfo.ContainerRuntimeVersion, // kept while the runtime is away
	}
	if in.version != nil {
		s.NodeInfo.ContainerRuntimeVersion = in.version.GetRuntimeName() + "://" + in.version.GetRuntimeVersion()
	}
	if in.machine.SwapBytes > 0 {
		swap := in.machine.SwapBytes
		s.NodeInfo.Swap = &corev1.NodeSwapStatus{Capacity: &swap}
	}
	if _, port, err := net.SplitHostPort(r.cfg.ServerAddr); err == nil {
		if p, err := strconv.Atoi(port); err == nil {
			s.DaemonEndpoints.KubeletEndpoint.Port = int32(p)
		}
	}
	if images && in.images != nil {
		s.Images = imageList(in.images)
	}
	if r.deps.InUse != nil {
		s.VolumesInUse = r.deps.InUse()
	}
	s.DeclaredFeatures = slices.Clone(Declared)
	features(s, in.runtime)
	conditions(s, in)
}

func (r *Reporter) capacity(s *corev1.NodeStatus, in snapshot) {
	bytes := func(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.BinarySI) }
	old := s.Capacity
	s.Capacity = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewMilliQuantity(int64(in.machine.Cores)*1000, resource.DecimalSI),
		corev1.ResourceMemory:           bytes(in.machine.MemoryBytes),
		corev1.ResourceEphemeralStorage: bytes(int64(in.disk)),
		corev1.ResourcePods:             *resource.NewQuantity(int64(r.cfg.MaxPods), resource.DecimalSI),
	}
	for size, n := range in.machine.HugePages {
		s.Capacity[corev1.ResourceName(corev1.ResourceHugePagesPrefix+size)] = bytes(n)
	}
	for name, q := range old { // given by whoever patched the node's status
		if device.Extended(name) {
			s.Capacity[name] = q
		}
	}
	s.Allocatable = corev1.ResourceList{}
	for name, q := range s.Capacity {
		q = q.DeepCopy()
		if held, has := r.cfg.Reserved[name]; has {
			q.Sub(held)
			if q.Sign() < 0 {
				q = *resource.NewQuantity(0, q.Format)
			}
		}
		s.Allocatable[name] = q
	}
	r.devices(s)
}

// devices adds what device plugins bring. A resource whose plugin is gone for good stays with none: others may still
// look for its name.
func (r *Reporter) devices(s *corev1.NodeStatus) {
	capacity, allocatable := r.deps.Devices()
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.brought {
		s.Capacity[name], s.Allocatable[name] = resource.Quantity{}, resource.Quantity{}
	}
	for name, q := range capacity {
		r.brought[name] = true
		s.Capacity[name], s.Allocatable[name] = q, allocatable[name]
	}
}

func imageList(all []*runtimeapi.Image) []corev1.ContainerImage {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *runtimeapi.Image) int {
		if a.GetSize() != b.GetSize() {
			return int(min(max(int64(b.GetSize())-int64(a.GetSize()), -1), 1))
		}
		return strings.Compare(a.GetId(), b.GetId())
	})
	var out []corev1.ContainerImage
	for _, i := range all[:min(len(all), maxImages)] {
		names := append(slices.Clone(i.GetRepoDigests()), i.GetRepoTags()...)
		out = append(out, corev1.ContainerImage{Names: names[:min(len(names), 5)], SizeBytes: int64(i.GetSize())})
	}
	return out
}

func features(s *corev1.NodeStatus, st *runtimeapi.StatusResponse) {
	if st == nil {
		return
	}
	s.RuntimeHandlers = nil
	for _, h := range st.GetRuntimeHandlers() {
		rro, userns := h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		s.RuntimeHandlers = append(s.RuntimeHandlers, corev1.NodeRuntimeHandler{
			Name:     h.GetName(),
			Features: &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &rro, UserNamespaces: &userns},
		})
	}
	if f := st.GetFeatures(); f != nil {
		groups := f.GetSupplementalGroupsPolicy()
		s.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: &groups}
	}
}

// conditions sets the four that the kubelet owns.
func conditions(s *corev1.NodeStatus, in snapshot) {
	pressure := func(t corev1.NodeConditionType, say, what, none string) {
		c := corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficient" + what, Message: "kubelet has sufficient " + none + " available"}
		if what == "NoDiskPressure" {
			c.Reason, c.Message = "KubeletHasNoDiskPressure", "kubelet has no disk pressure"
		}
		if say != "" {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "KubeletHasInsufficient"+what, say
			if t == corev1.NodeDiskPressure {
				c.Reason = "KubeletHasDiskPressure"
			}
		}
		set(s, c, in.now)
	}
	pressure(corev1.NodeMemoryPressure, in.pressure.Memory, "Memory", "memory")
	pressure(corev1.NodeDiskPressure, in.pressure.Disk, "NoDiskPressure", "")
	pressure(corev1.NodePIDPressure, in.pressure.PID, "PID", "PID")
	ready := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status",
	}
	if t := trouble(in); t != "" {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", t
	}
	set(s, ready, in.now)
}

// trouble says why the node is not ready, "" if it is.
func trouble(in snapshot) string {
	if in.trouble != "" {
		return in.trouble
	}
	var out []string
	if in.leaving {
		out = append(out, "node is shutting down")
	}
	seen := map[string]bool{}
	for _, c := range in.runtime.GetStatus().GetConditions() {
		seen[c.GetType()] = true
		if !c.GetStatus() && (c.GetType() == runtimeapi.RuntimeReady || c.GetType() == runtimeapi.NetworkReady) {
			out = append(out, "container runtime "+strings.TrimSuffix(strings.ToLower(c.GetType()), "ready")+" not ready: "+
				c.GetType()+"=false reason:"+c.GetReason()+" message:"+c.GetMessage())
		}
	}
	for _, need := range []string{runtimeapi.RuntimeReady, runtimeapi.NetworkReady} {
		if !seen[need] {
			out = append(out, "container runtime status does not say "+need)
		}
	}
	return strings.Join(out, ", ")
}

func set(s *corev1.NodeStatus, c corev1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime = metav1.NewTime(now).Rfc3339Copy()
	c.LastTransitionTime = c.LastHeartbeatTime
	for i, old := range s.Conditions {
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		s.Conditions[i] = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}
