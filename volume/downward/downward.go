package downward

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"keelson.dev/keelson/volume/atomicdir"
)

// Allocatable is what a node has for its pods; it is asked only when that is needed.
type Allocatable func() (corev1.ResourceList, error)

// Files lists the files of a downward API volume. mode is for items that have none of their own; node is what stands in for
// limits that a container does not set.
func Files(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode int32, node Allocatable) (map[string]atomicdir.File, error) {
	out := map[string]atomicdir.File{}
	for _, it := range items {
		var v string
		var err error
		switch {
		case it.FieldRef != nil:
			v, err = Field(pod, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			v, err = Resource(pod, it.ResourceFieldRef.ContainerName, it.ResourceFieldRef, node)
		default:
			err = fmt.Errorf("downward API item %s names neither a field nor a resource", it.Path)
		}
		if err != nil {
			return nil, err
		}
		m := mode
		if it.Mode != nil {
			m = *it.Mode
		}
		out[it.Path] = atomicdir.File{Data: []byte(v), Mode: fs.FileMode(m).Perm()}
	}
	return out, nil
}

// Field returns a pod's field by its path ("metadata.name", "metadata.labels['app']", "status.podIP", ...).
func Field(pod *corev1.Pod, path string) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("unsupported field path %q", path)
	}
	var hosts, ips []string
	for _, a := range pod.Status.HostIPs {
		hosts = append(hosts, a.IP)
	}
	for _, a := range pod.Status.PodIPs {
		ips = append(ips, a.IP)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return format(pod.Labels), nil
	case "metadata.annotations":
		return format(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return pod.Status.HostIP, nil
	case "status.podIP":
		return pod.Status.PodIP, nil
	case "status.hostIPs":
		return strings.Join(hosts, ","), nil
	case "status.podIPs":
		return strings.Join(ips, ","), nil
	}
	return "", fmt.Errorf("unsupported field path %q", path)
}

// subscript splits "metadata.labels['a/b']" into "metadata.labels" and "a/b".
func subscript(path string) (name, key string, ok bool) {
	name, rest, ok := strings.Cut(path, "['")
	if !ok || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return name, strings.TrimSuffix(rest, "']"), true
}

// format writes a map as users of the downward API expect it: one key="value" per line, sorted, quoted as Go does.
func format(m map[string]string) string {
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(k + "=" + strconv.Quote(m[k]))
	}
	return b.String()
}

// Resource returns a limit or request of a container of any kind, in units of the divisor and rounded up. A limit of what every
// container uses, if it is not set, is the pod's, and without one the node's allocatable amount; all else that is not set is 0.
func Resource(pod *corev1.Pod, container string, ref *corev1.ResourceFieldSelector, node Allocatable) (string, error) {
	res := requirements(pod, container)
	if res == nil {
		return "", fmt.Errorf("container %q not found", container)
	}
	kind, resourceName, _ := strings.Cut(ref.Resource, ".")
	name := corev1.ResourceName(resourceName)
	var q resource.Quantity
	var err error
	switch kind {
	case "limits":
		q, err = limit(pod, res, name, node)
	case "requests":
		q = res.Requests[name]
	default:
		err = fmt.Errorf("unsupported container resource %q", ref.Resource)
	}
	if err != nil {
		return "", err
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == corev1.ResourceCPU {
		return strconv.FormatInt(up(q.MilliValue(), divisor.MilliValue()), 10), nil
	}
	return strconv.FormatInt(up(q.Value(), divisor.Value()), 10), nil
}

func requirements(pod *corev1.Pod, container string) *corev1.ResourceRequirements {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == container {
				return &list[i].Resources
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if c := &pod.Spec.EphemeralContainers[i]; c.Name == container {
			return &c.Resources
		}
	}
	return nil
}

func limit(pod *corev1.Pod, res *corev1.ResourceRequirements, name corev1.ResourceName, node Allocatable) (resource.Quantity, error) {
	q := res.Limits[name]
	if !q.IsZero() || name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage {
		return q, nil
	}
	if pod.Spec.Resources != nil {
		if q := pod.Spec.Resources.Limits[name]; !q.IsZero() {
			return q, nil
		}
	}
	allocatable, err := node()
	if err != nil {
		return q, fmt.Errorf("what the node has, for %s: %w", name, err)
	}
	return allocatable[name], nil
}

func up(a, b int64) int64 {
	if b <= 0 {
		return a
	}
	return (a + b - 1) / b
}
