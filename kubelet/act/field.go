package act

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/volume/downward"
)

// field is the value of a downward API field (docs: Downward API) for an environment variable.
func (e *Executor) field(pod *corev1.Pod, path string, ips []string) (string, error) {
	if base, key, ok := subscript(path); ok {
		switch base {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return strings.Join(ips[:min(1, len(ips))], ""), nil
	case "status.podIPs":
		return strings.Join(ips, ","), nil
	case "status.hostIP", "status.hostIPs":
		node, err := e.API.Node()
		if err != nil {
			return "", fmt.Errorf("field %s: %w", path, err)
		}
		hosts := HostIPs(node)
		if path == "status.hostIP" {
			hosts = hosts[:min(1, len(hosts))]
		}
		return strings.Join(hosts, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (base, key string, ok bool) {
	base, rest, found := strings.Cut(path, "['")
	key, closed := strings.CutSuffix(rest, "']")
	return base, key, found && closed
}

// HostIPs are a node's internal addresses, the primary one first.
func HostIPs(node *corev1.Node) []string {
	var out []string
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range node.Status.Addresses {
			if a.Type == kind && !slices.Contains(out, a.Address) {
				out = append(out, a.Address)
			}
		}
		if len(out) > 0 {
			break
		}
	}
	return out
}

// resourceField is the value of a resourceFieldRef, which is the container's own where it names none.
func (e *Executor) resourceField(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	return downward.Resource(pod, cmp.Or(ref.ContainerName, c.Name), ref, func() (corev1.ResourceList, error) {
		node, err := e.API.Node()
		if err != nil {
			return nil, err
		}
		return node.Status.Allocatable, nil
	})
}
