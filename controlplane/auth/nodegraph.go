package auth

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// ref names an object that a node may have business with.
type ref struct{ resource, namespace, name string }

// graph knows which objects the pods on each node refer to. Of a pod it keeps only the names of what it refers to.
type graph struct {
	mu sync.RWMutex // guards the mirrors and the maps

	pods        *mirror[*corev1.Pod, podRefs]
	volumes     *mirror[*corev1.PersistentVolume, volumeRefs]
	attachments *mirror[*storagev1.VolumeAttachment, string]

	// uses counts, per node and object, the pods on the node that refer to the object.
	uses map[string]map[ref]int
	// claimOf and volumesWith follow a volume to the claim that has it, and a Secret to the volumes that name it.
	claimOf     map[string]ref
	volumesWith map[ref]map[string]bool
}

type podRefs struct {
	node string
	refs []ref
}

type volumeRefs struct {
	claim   ref
	secrets []ref
}

func newGraph() *graph {
	g := &graph{uses: map[string]map[ref]int{}, claimOf: map[string]ref{}, volumesWith: map[ref]map[string]bool{}}
	g.pods = newMirror(&g.mu, podRefsOf, func(_ string, old, new *podRefs) { g.count(old, -1); g.count(new, 1) })
	g.volumes = newMirror(&g.mu, volumeRefsOf, g.volumeChanged)
	g.attachments = newMirror(&g.mu, func(a *storagev1.VolumeAttachment) string { return a.Spec.NodeName },
		func(string, *string, *string) {})
	return g
}

func (g *graph) run(ctx context.Context, source Source) {
	var wg sync.WaitGroup
	follow := func(gr schema.GroupResource, run func(cache.ListerWatcher)) {
		if lw := source(gr); lw != nil {
			wg.Go(func() { run(lw) })
		}
	}
	follow(schema.GroupResource{Resource: "pods"}, func(lw cache.ListerWatcher) { g.pods.run(ctx, lw, &corev1.Pod{}) })
	follow(schema.GroupResource{Resource: "persistentvolumes"}, func(lw cache.ListerWatcher) { g.volumes.run(ctx, lw, &corev1.PersistentVolume{}) })
	follow(schema.GroupResource{Group: storagev1.GroupName, Resource: "volumeattachments"}, func(lw cache.ListerWatcher) {
		g.attachments.run(ctx, lw, &storagev1.VolumeAttachment{})
	})
	wg.Wait()
}

// count. Precondition: g.mu is held.
func (g *graph) count(p *podRefs, by int) {
	if p == nil || p.node == "" {
		return
	}
	uses := g.uses[p.node]
	if uses == nil {
		uses = map[ref]int{}
		g.uses[p.node] = uses
	}
	for _, r := range p.refs {
		if uses[r] += by; uses[r] == 0 {
			delete(uses, r)
		}
	}
	if len(uses) == 0 {
		delete(g.uses, p.node)
	}
}

// volumeChanged. Precondition: g.mu is held.
func (g *graph) volumeChanged(key string, old, new *volumeRefs) {
	name := key[1:] // a volume has no namespace
	if old != nil {
		delete(g.claimOf, name)
		for _, s := range old.secrets {
			if delete(g.volumesWith[s], name); len(g.volumesWith[s]) == 0 {
				delete(g.volumesWith, s)
			}
		}
	}
	if new != nil {
		g.claimOf[name] = new.claim
		for _, s := range new.secrets {
			if g.volumesWith[s] == nil {
				g.volumesWith[s] = map[string]bool{}
			}
			g.volumesWith[s][name] = true
		}
	}
}

// reaches tells whether a pod on the node refers to the object, itself or through its volumes.
func (g *graph) reaches(node string, r ref) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	uses := g.uses[node]
	switch r.resource {
	case "persistentvolumes":
		return uses[g.claimOf[r.name]] > 0
	case "volumeattachments":
		return g.attachments.objs[keyOf("", r.name)] == node
	case "secrets":
		for v := range g.volumesWith[r] {
			if uses[g.claimOf[v]] > 0 {
				return true
			}
		}
	}
	return uses[r] > 0
}

// podRefsOf lists what the kubelet needs for a pod. A mirror pod (made by a kubelet for a static pod) gets nothing: its
// kubelet would otherwise grant itself whatever it names in one.
func podRefsOf(p *corev1.Pod) podRefs {
	out := podRefs{node: p.Spec.NodeName}
	add := func(resource, name string) {
		if name != "" {
			out.refs = append(out.refs, ref{resource, p.Namespace, name})
		}
	}
	add("pods", p.Name)
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return out
	}
	add("serviceaccounts", p.Spec.ServiceAccountName)
	for _, s := range p.Spec.ImagePullSecrets {
		add("secrets", s.Name)
	}
	for i := range p.Spec.InitContainers {
		envRefs(p.Spec.InitContainers[i].Env, p.Spec.InitContainers[i].EnvFrom, add)
	}
	for i := range p.Spec.Containers {
		envRefs(p.Spec.Containers[i].Env, p.Spec.Containers[i].EnvFrom, add)
	}
	for i := range p.Spec.EphemeralContainers {
		envRefs(p.Spec.EphemeralContainers[i].Env, p.Spec.EphemeralContainers[i].EnvFrom, add)
	}
	for i := range p.Spec.Volumes {
		volumeSourceRefs(p.Name, &p.Spec.Volumes[i], add)
	}
	for _, c := range p.Status.ResourceClaimStatuses {
		if c.ResourceClaimName != nil {
			add("resourceclaims", *c.ResourceClaimName)
		}
	}
	for _, c := range p.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			add("resourceclaims", *c.ResourceClaimName)
		}
	}
	return out
}

func envRefs(env []corev1.EnvVar, from []corev1.EnvFromSource, add func(resource, name string)) {
	for _, f := range from {
		if f.ConfigMapRef != nil {
			add("configmaps", f.ConfigMapRef.Name)
		}
		if f.SecretRef != nil {
			add("secrets", f.SecretRef.Name)
		}
	}
	for _, e := range env {
		if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
			add("configmaps", e.ValueFrom.ConfigMapKeyRef.Name)
		}
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			add("secrets", e.ValueFrom.SecretKeyRef.Name)
		}
	}
}

func volumeSourceRefs(pod string, v *corev1.Volume, add func(resource, name string)) {
	switch {
	case v.Secret != nil:
		add("secrets", v.Secret.SecretName)
	case v.ConfigMap != nil:
		add("configmaps", v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		add("persistentvolumeclaims", v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		add("persistentvolumeclaims", pod+"-"+v.Name)
	case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
		add("secrets", v.CSI.NodePublishSecretRef.Name)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				add("secrets", s.Secret.Name)
			}
			if s.ConfigMap != nil {
				add("configmaps", s.ConfigMap.Name)
			}
		}
	}
}

func volumeRefsOf(v *corev1.PersistentVolume) volumeRefs {
	var out volumeRefs
	if c := v.Spec.ClaimRef; c != nil {
		out.claim = ref{"persistentvolumeclaims", c.Namespace, c.Name}
	}
	if csi := v.Spec.CSI; csi != nil {
		for _, s := range []*corev1.SecretReference{csi.NodePublishSecretRef, csi.NodeStageSecretRef, csi.NodeExpandSecretRef} {
			if s != nil {
				out.secrets = append(out.secrets, ref{"secrets", s.Namespace, s.Name})
			}
		}
	}
	return out
}
