package persistentvolume

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func volume(name, size string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"disk": name}},
		Spec: corev1.PersistentVolumeSpec{Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}}}
	for _, c := range change {
		c(pv)
	}
	return pv
}

func wish(change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "1"},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")}}}}
	for _, f := range change {
		f(c)
	}
	return c
}

func forClaim(namespace, name string, uid types.UID) func(*corev1.PersistentVolume) {
	return func(pv *corev1.PersistentVolume) {
		pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: namespace, Name: name, UID: uid}
	}
}

func class(name string) func(*corev1.PersistentVolume) {
	return func(pv *corev1.PersistentVolume) { pv.Spec.StorageClassName = name }
}

func phase(p corev1.PersistentVolumePhase) func(*corev1.PersistentVolume) {
	return func(pv *corev1.PersistentVolume) { pv.Status.Phase = p }
}

func TestBest(t *testing.T) {
	on := func(node string) func(*corev1.PersistentVolume) {
		return func(pv *corev1.PersistentVolume) {
			pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}}
		}
	}
	block := func(pv *corev1.PersistentVolume) { pv.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) }
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	for name, c := range map[string]struct {
		claim     *corev1.PersistentVolumeClaim
		volumes   []*corev1.PersistentVolume
		onlyNamed bool
		want      string
	}{
		"the smallest that is large enough": {wish(), []*corev1.PersistentVolume{volume("a", "10Gi"), volume("b", "6Gi"), volume("c", "4Gi")}, false, "b"},
		"by name among equals":              {wish(), []*corev1.PersistentVolume{volume("b", "6Gi"), volume("a", "6Gi")}, false, "a"},
		"one that waits for it":             {wish(), []*corev1.PersistentVolume{volume("a", "5Gi"), volume("b", "9Gi", forClaim("ns", "c", ""))}, false, "b"},
		"not one that waits for another":    {wish(), []*corev1.PersistentVolume{volume("a", "5Gi", forClaim("ns", "other", ""))}, false, ""},
		"not that of a claim of its name":   {wish(), []*corev1.PersistentVolume{volume("a", "5Gi", forClaim("ns", "c", "old"))}, false, ""},
		"not a released one":                {wish(), []*corev1.PersistentVolume{volume("a", "5Gi", phase(corev1.VolumeReleased))}, false, ""},
		"of its class only":                 {wish(), []*corev1.PersistentVolume{volume("a", "5Gi", class("fast"))}, false, ""},
		"of its mode only":                  {wish(), []*corev1.PersistentVolume{volume("a", "5Gi", block)}, false, ""},
		"on its node":                       {wish(), []*corev1.PersistentVolume{volume("a", "5Gi", on("n2")), volume("b", "6Gi", on("n1"))}, false, "b"},
		"of all modes that it asks": {wish(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = append(c.Spec.AccessModes, corev1.ReadWriteMany)
		}), []*corev1.PersistentVolume{volume("a", "5Gi")}, false, ""},
		"by selector": {wish(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": "b"}}
		}), []*corev1.PersistentVolume{volume("a", "5Gi"), volume("b", "9Gi")}, false, "b"},
		"a waiting claim takes no free one": {wish(), []*corev1.PersistentVolume{volume("a", "5Gi")}, true, ""},
	} {
		got := ""
		if pv := Best(c.claim, c.volumes, node, c.onlyNamed); pv != nil {
			got = pv.Name
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
