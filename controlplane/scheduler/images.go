package scheduler

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// What an image's presence is worth, by its size: nothing below leastImage for all, no more than mostImage for each image (upstream's figures).
const (
	leastImage = 23 << 20
	mostImage  = 1000 << 20 // bytes
)

// imagesThere prefers the node that has the pod's images already. An image that few nodes have counts for less: or else all who
// want it would go to one node.
func imagesThere(c *Cluster, pod *Pod, n *Node) int64 {
	names := images(pod.Pod)
	var sum int64
	for _, name := range names {
		size := n.images[name]
		if size == 0 {
			continue
		}
		var have int64
		for _, other := range c.Nodes {
			if other.images[name] != 0 {
				have++
			}
		}
		sum += size * have / int64(len(c.Nodes))
	}
	most := int64(mostImage) * int64(len(names))
	if most <= leastImage {
		return 0
	}
	return top * (min(max(sum, leastImage), most) - leastImage) / (most - leastImage)
}

// images are those that a pod starts with, named as nodes name them.
func images(pod *corev1.Pod) (out []string) {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			out = append(out, list[i].Image)
		}
	}
	for _, v := range pod.Spec.Volumes {
		if v.Image != nil {
			out = append(out, v.Image.Reference)
		}
	}
	for i, name := range out {
		if strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
			out[i] = name + ":latest"
		}
	}
	return out
}

// imageSizes are a node's images. A pod may leave out the default registry.
func imageSizes(list []corev1.ContainerImage) map[string]int64 {
	out := map[string]int64{}
	for _, image := range list {
		for _, name := range image.Names {
			short := strings.TrimPrefix(name, "docker.io/")
			for _, n := range []string{name, short, strings.TrimPrefix(short, "library/")} {
				out[n] = image.SizeBytes
			}
		}
	}
	return out
}
