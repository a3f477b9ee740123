package device

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// wish is what one container asks for of one resource, with what it may take over from init containers before it.
type wish struct {
	key
	count int
	reuse []string
}

// Allocate gives a pod's containers the devices that they ask for. It is done at admission: when it returns nil, the gift
// is on disk and stays the pod's until Free; when not, nothing is given. What was given before is kept.
func (m *Manager) Allocate(ctx context.Context, pod *corev1.Pod) error {
	if !m.concerned(pod) {
		return nil
	}
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	reuse, given := map[string][]string{}, []key(nil)
	one := func(c *corev1.Container, initial bool) error {
		for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
			q := c.Resources.Limits[name]
			r := string(name)
			if q.IsZero() || !m.manages(r) {
				continue
			}
			w := wish{key{pod.UID, c.Name, r}, int(q.Value()), reuse[r]}
			ids, fresh, err := m.give(ctx, w)
			if err != nil {
				return err
			}
			if fresh {
				given = append(given, w.key)
			}
			reuse[r] = slices.DeleteFunc(reuse[r], func(id string) bool { return slices.Contains(ids, id) })
			if initial {
				reuse[r] = append(reuse[r], ids...)
			}
		}
		return nil
	}
	err := eachContainer(pod, one)
	if err == nil && len(given) > 0 {
		err = m.save()
	}
	if err != nil {
		m.mu.Lock()
		for _, k := range given { // and no others: a container may be running with what it got before
			delete(m.book.gifts, k)
		}
		m.mu.Unlock()
	}
	return err
}

// eachContainer calls f for the containers in the order in which they start; initial ones have ended when the next starts.
func eachContainer(pod *corev1.Pod, f func(c *corev1.Container, initial bool) error) error {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		if err := f(c, !sidecar); err != nil {
			return err
		}
	}
	for i := range pod.Spec.Containers {
		if err := f(&pod.Spec.Containers[i], false); err != nil {
			return err
		}
	}
	return nil
}

// concerned tells whether any container asks for a resource of ours.
func (m *Manager) concerned(pod *corev1.Pod) (yes bool) {
	_ = eachContainer(pod, func(c *corev1.Container, _ bool) error {
		for name, q := range c.Resources.Limits {
			yes = yes || !q.IsZero() && m.manages(string(name))
		}
		return nil
	})
	return yes
}

// manages tells whether a resource comes, or came, from a device plugin.
func (m *Manager) manages(resource string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.plugins[resource] != nil || m.old[resource]
}

// give makes one gift. Preconditions: it is the caller's turn.
func (m *Manager) give(ctx context.Context, w wish) (ids []string, fresh bool, err error) {
	m.mu.Lock()
	if g, has := m.book.gifts[w.key]; has {
		m.mu.Unlock()
		return g.IDs, false, nil
	}
	p, free := m.plugins[w.Resource], m.book.free(w.Resource)
	_, err = m.book.pick(w.Resource, w.count, w.reuse, nil)
	m.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	if p == nil {
		return nil, false, &shortage{Resource: w.Resource, Want: w.count}
	}
	preferred := p.prefer(ctx, free, must(w.count, w.reuse), w.count)
	m.mu.Lock()
	ids, err = m.book.pick(w.Resource, w.count, w.reuse, preferred)
	m.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	res, err := p.allocate(ctx, ids)
	if err != nil {
		return nil, false, fmt.Errorf("the device plugin of %s refused: %w", w.Resource, err)
	}
	raw, err := proto.Marshal(res)
	if err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	m.book.gifts[w.key] = gift{IDs: ids, Answer: raw}
	m.mu.Unlock()
	return ids, true, nil
}

// Free takes back what a pod has. Preconditions: none of its containers runs.
func (m *Manager) Free(uid types.UID) {
	m.mu.Lock()
	had := m.book.drop(uid)
	m.mu.Unlock()
	if had {
		m.saveFreed()
	}
}

// Retain takes back what pods have that are not among those that the node is to have: they were deleted while the
// kubelet was away.
func (m *Manager) Retain(wanted func(types.UID) bool) {
	m.mu.Lock()
	had := len(m.book.gifts)
	maps.DeleteFunc(m.book.gifts, func(k key, _ gift) bool { return !wanted(k.Pod) })
	freed := len(m.book.gifts) < had
	m.mu.Unlock()
	if freed {
		m.saveFreed()
	}
}

// saveFreed records less than before. If that fails, devices stay given until the next record: safe, if wasteful.
func (m *Manager) saveFreed() {
	if err := m.save(); err != nil {
		m.cfg.Log.Warn("record the devices given", "err", err)
	}
}

// Container is what a container needs to use its devices, as the part of its CRI configuration that says so; nil when it
// has none. It is asked at each start: plugins that want to prepare devices do so now.
func (m *Manager) Container(ctx context.Context, pod *corev1.Pod, name string) (*runtimeapi.ContainerConfig, error) {
	if err := m.Allocate(ctx, pod); err != nil { // no more than a look for a pod that has what it asks for
		return nil, err
	}
	type part struct {
		key
		gift
		plugin *plugin
	}
	var parts []part
	m.mu.Lock()
	for k, g := range m.book.gifts {
		if k.Pod == pod.UID && k.Container == name {
			parts = append(parts, part{k, g, m.plugins[k.Resource]})
		}
	}
	m.mu.Unlock()
	if len(parts) == 0 {
		return nil, nil
	}
	sort.Slice(parts, func(i, j int) bool { return parts[i].Resource < parts[j].Resource })
	out := &runtimeapi.ContainerConfig{Annotations: map[string]string{}}
	for _, p := range parts {
		if p.plugin != nil {
			if err := p.plugin.preStart(ctx, p.IDs); err != nil {
				return nil, fmt.Errorf("the device plugin of %s could not prepare %v: %w", p.Resource, p.IDs, err)
			}
		}
		var res api.ContainerAllocateResponse
		if err := proto.Unmarshal(p.Answer, &res); err != nil {
			return nil, fmt.Errorf("devices of %s: %w", p.Resource, err)
		}
		need(out, &res)
	}
	return out, nil
}

// need adds what a plugin answered to a container's configuration.
func need(out *runtimeapi.ContainerConfig, res *api.ContainerAllocateResponse) {
	for _, k := range slices.Sorted(maps.Keys(res.GetEnvs())) {
		out.Envs = append(out.Envs, &runtimeapi.KeyValue{Key: k, Value: []byte(res.GetEnvs()[k])})
	}
	for _, v := range res.GetMounts() {
		out.Mounts = append(out.Mounts, &runtimeapi.Mount{ContainerPath: v.GetContainerPath(), HostPath: v.GetHostPath(), Readonly: v.GetReadOnly()})
	}
	for _, d := range res.GetDevices() {
		out.Devices = append(out.Devices, &runtimeapi.Device{ContainerPath: d.GetContainerPath(), HostPath: d.GetHostPath(), Permissions: d.GetPermissions()})
	}
	for _, d := range res.GetCdiDevices() {
		out.CDIDevices = append(out.CDIDevices, &runtimeapi.CDIDevice{Name: d.GetName()})
	}
	maps.Copy(out.Annotations, res.GetAnnotations())
}

// Capacity is how much of each resource the node has, and how much of that is healthy. A resource whose plugin has not
// come back after a restart shows as none.
func (m *Manager) Capacity() (capacity, allocatable corev1.ResourceList) {
	capacity, allocatable = corev1.ResourceList{}, corev1.ResourceList{}
	m.mu.Lock()
	defer m.mu.Unlock()
	set := func(r string) {
		all, healthy := m.book.count(r)
		capacity[corev1.ResourceName(r)] = *resource.NewQuantity(int64(all), resource.DecimalSI)
		allocatable[corev1.ResourceName(r)] = *resource.NewQuantity(int64(healthy), resource.DecimalSI)
	}
	for r := range m.plugins {
		set(r)
	}
	for r := range m.old {
		set(r)
	}
	return capacity, allocatable
}

// Health says by container name how the pod's devices are (KEP-4680).
func (m *Manager) Health(uid types.UID) map[string][]corev1.ResourceStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]corev1.ResourceStatus{}
	for k, g := range m.book.gifts {
		if k.Pod != uid {
			continue
		}
		s := corev1.ResourceStatus{Name: corev1.ResourceName(k.Resource)}
		for _, id := range g.IDs {
			h := corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: corev1.ResourceHealthStatusUnknown}
			if u, known := m.book.units[k.Resource][id]; known && u.healthy {
				h.Health = corev1.ResourceHealthStatusHealthy
			} else if known {
				h.Health = corev1.ResourceHealthStatusUnhealthy
			}
			s.Resources = append(s.Resources, h)
		}
		out[k.Container] = append(out[k.Container], s)
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b corev1.ResourceStatus) int {
			if a.Name < b.Name {
				return -1
			}
			return 1
		})
	}
	return out
}

// Given are devices of one resource: one container's, or those that can be given. Numa are the memory nodes near them.
type Given struct {
	Resource string
	IDs      []string
	Numa     []int64
}

// Of is what a pod's containers have, by container name.
func (m *Manager) Of(uid types.UID) map[string][]Given {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]Given{}
	for k, g := range m.book.gifts {
		if k.Pod == uid {
			out[k.Container] = append(out[k.Container], m.book.grouped(k.Resource, g.IDs)...)
		}
	}
	return out
}

// Allocatable are the healthy devices of the node.
func (m *Manager) Allocatable() []Given {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Given
	for r, units := range m.book.units {
		var ids []string
		for id, u := range units {
			if u.healthy {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		out = append(out, m.book.grouped(r, ids)...)
	}
	return out
}

// grouped puts devices that are near to the same memory nodes together.
func (l *ledger) grouped(r string, ids []string) []Given {
	var out []Given
	for _, id := range ids {
		numa := l.units[r][id].numa
		i := slices.IndexFunc(out, func(g Given) bool { return slices.Equal(g.Numa, numa) })
		if i < 0 {
			i, out = len(out), append(out, Given{Resource: r, Numa: numa})
		}
		out[i].IDs = append(out[i].IDs, id)
	}
	return out
}
