package auth

import (
	"cmp"
	"context"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// ref names an object that a node may have business with.
type ref struct{ resource, namespace, name string }

// graph knows which objects the pods on each node refer to. Of a pod it keeps only the names of what it refers to.
type graph struct {
	mu sync.RWMutex // guards the mirrors and the maps

	pods    *mirror[*corev1.Pod, podRefs]
	volumes *mirror[*corev1.PersistentVolume, volumeRefs]
	// Of these, the node that each is of.
	attachments *mirror[*storagev1.VolumeAttachment, string]
	requests    *mirror[*certificatesv1.PodCertificateRequest, string]
	slices      *mirror[*resourcev1.ResourceSlice, string]

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
	nothing := func(string, *string, *string) {}
	g.attachments = newMirror(&g.mu, func(a *storagev1.VolumeAttachment) string { return a.Spec.NodeName }, nothing)
	g.requests = newMirror(&g.mu, func(r *certificatesv1.PodCertificateRequest) string { return string(r.Spec.NodeName) }, nothing)
	g.slices = newMirror(&g.mu, func(s *resourcev1.ResourceSlice) string { return ptr.Deref(s.Spec.NodeName, "") }, nothing)
	registerMetrics()
	g.pods.adds, g.pods.removes = graphActions("Pod")
	g.volumes.adds, g.volumes.removes = graphActions("PV")
	g.attachments.adds, g.attachments.removes = graphActions("VolumeAttachment")
	g.requests.adds, g.requests.removes = graphActions("PodCertificateRequest")
	g.slices.adds, g.slices.removes = graphActions("ResourceSlice")
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
	follow(schema.GroupResource{Group: certificatesv1.GroupName, Resource: "podcertificaterequests"}, func(lw cache.ListerWatcher) {
		g.requests.run(ctx, lw, &certificatesv1.PodCertificateRequest{})
	})
	follow(schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceslices"}, func(lw cache.ListerWatcher) {
		g.slices.run(ctx, lw, &resourcev1.ResourceSlice{})
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

// reaches tells whether the object is the node's own, or a pod on the node refers to it, itself or through its volumes.
func (g *graph) reaches(node string, r ref) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	uses := g.uses[node]
	switch r.resource {
	case "persistentvolumes":
		return uses[g.claimOf[r.name]] > 0
	case "volumeattachments":
		return g.attachments.objs[keyOf("", r.name)] == node
	case "podcertificaterequests":
		return g.requests.objs[keyOf(r.namespace, r.name)] == node
	case "resourceslices":
		return g.slices.objs[keyOf("", r.name)] == node
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
	if c := p.Status.ExtendedResourceClaimStatus; c != nil {
		add("resourceclaims", c.ResourceClaimName)
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
	local := func(r *corev1.LocalObjectReference) {
		if r != nil {
			add("secrets", r.Name)
		}
	}
	switch {
	case v.Secret != nil:
		add("secrets", v.Secret.SecretName)
	case v.ConfigMap != nil:
		add("configmaps", v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		add("persistentvolumeclaims", v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		add("persistentvolumeclaims", pod+"-"+v.Name)
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				add("secrets", s.Secret.Name)
			}
			if s.ConfigMap != nil {
				add("configmaps", s.ConfigMap.Name)
			}
		}
	case v.AzureFile != nil:
		add("secrets", v.AzureFile.SecretName)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	}
}

// volumeRefsOf lists the claim of a volume and the Secrets that a kubelet needs for it. One without a namespace of its own is
// beside the claim.
func volumeRefsOf(v *corev1.PersistentVolume) volumeRefs {
	var out volumeRefs
	c := v.Spec.ClaimRef
	if c == nil {
		return out
	}
	out.claim = ref{"persistentvolumeclaims", c.Namespace, c.Name}
	add := func(s *corev1.SecretReference) {
		if s != nil && s.Name != "" {
			out.secrets = append(out.secrets, ref{"secrets", cmp.Or(s.Namespace, c.Namespace), s.Name})
		}
	}
	switch s := &v.Spec.PersistentVolumeSource; {
	case s.CSI != nil:
		add(s.CSI.NodePublishSecretRef)
		add(s.CSI.NodeStageSecretRef)
		add(s.CSI.NodeExpandSecretRef)
	case s.AzureFile != nil:
		add(&corev1.SecretReference{Name: s.AzureFile.SecretName, Namespace: ptr.Deref(s.AzureFile.SecretNamespace, "")})
	case s.CephFS != nil:
		add(s.CephFS.SecretRef)
	case s.Cinder != nil:
		add(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		add(s.FlexVolume.SecretRef)
	case s.RBD != nil:
		add(s.RBD.SecretRef)
	case s.ScaleIO != nil:
		add(s.ScaleIO.SecretRef)
	case s.ISCSI != nil:
		add(s.ISCSI.SecretRef)
	case s.StorageOS != nil && s.StorageOS.SecretRef != nil:
		add(&corev1.SecretReference{Name: s.StorageOS.SecretRef.Name, Namespace: s.StorageOS.SecretRef.Namespace})
	}
	return out
}
