package kubelet

import (
	"context"
	"maps"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/kubelet/plan"
)

// refreshTask brings the content of a pod's volumes up to date.
const refreshTask = "refresh"

// object names a ConfigMap or Secret that a pod's volumes are made of; without a name it is every ClusterTrustBundle.
type object struct{ kind, namespace, name string }

// trustBundles are watched together: there are few, and every node may read them.
const trustBundles = "ClusterTrustBundle"

// objectWatches watches, one by one, the objects that pods' volumes are made of (Node authorization allows no list),
// and calls changed for each pod that uses one when it changes. A watch lives as long as a pod wants it.
type objectWatches struct {
	client  kubernetes.Interface
	changed func(types.UID)
	wg      sync.WaitGroup

	mu      sync.Mutex
	objects map[object]*objectWatch           // guarded by mu
	pods    map[types.UID]map[object]struct{} // guarded by mu
}

// objectWatch is one watch with its users, guarded by objectWatches.mu.
type objectWatch struct {
	cancel context.CancelFunc
	users  map[types.UID]struct{}
	seen   string // resource version last told of
}

func newObjectWatches(client kubernetes.Interface, changed func(types.UID)) *objectWatches {
	return &objectWatches{client: client, changed: changed,
		objects: map[object]*objectWatch{}, pods: map[types.UID]map[object]struct{}{}}
}

// set says which objects a pod uses now; none lets go of all. ctx ends all watches.
func (w *objectWatches) set(ctx context.Context, uid types.UID, want map[object]struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for o := range w.pods[uid] {
		if _, still := want[o]; still {
			continue
		}
		e := w.objects[o]
		delete(e.users, uid)
		if len(e.users) == 0 {
			e.cancel()
			delete(w.objects, o)
		}
	}
	if len(want) == 0 {
		delete(w.pods, uid)
		return
	}
	w.pods[uid] = want
	for o := range want {
		e := w.objects[o]
		if e == nil {
			var own context.Context
			e = &objectWatch{users: map[types.UID]struct{}{}}
			own, e.cancel = context.WithCancel(ctx)
			w.objects[o] = e
			w.wg.Go(func() { w.follow(own, o, e) }) // ends with its cancel or ctx
		}
		e.users[uid] = struct{}{}
	}
}

// follow watches one object.
func (w *objectWatches) follow(ctx context.Context, o object, e *objectWatch) {
	core := w.client.CoreV1()
	var kind runtime.Object = &corev1.ConfigMap{}
	list := func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		return core.ConfigMaps(o.namespace).List(ctx, opts)
	}
	follow := func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		return core.ConfigMaps(o.namespace).Watch(ctx, opts)
	}
	selector := fields.OneTermEqualSelector("metadata.name", o.name).String()
	switch o.kind {
	case trustBundles:
		kind, selector = &certificatesv1.ClusterTrustBundle{}, ""
		bundles := w.client.CertificatesV1().ClusterTrustBundles()
		list = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return bundles.List(ctx, opts)
		}
		follow = bundles.Watch
	case "Secret":
		kind = &corev1.Secret{}
		list = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return core.Secrets(o.namespace).List(ctx, opts)
		}
		follow = func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			return core.Secrets(o.namespace).Watch(ctx, opts)
		}
	}
	inf := informer(w.client, kind, selector, list, follow)
	_ = inf.SetTransform(onlyVersion) // fails only on a running informer
	tell := func(obj any) {
		if m, is := obj.(metav1.Object); is && (m.GetName() == o.name || o.kind == trustBundles) {
			w.tell(e, m.GetResourceVersion())
		}
	}
	_, _ = inf.AddEventHandler(cache.ResourceEventHandlerFuncs{ // fails only on a stopped informer
		AddFunc: tell, UpdateFunc: func(_, now any) { tell(now) }, DeleteFunc: func(any) { w.tell(e, "") },
	})
	inf.RunWithContext(ctx)
}

// onlyVersion keeps content out of the watch's memory: secrets above all. The volume manager reads it when it needs it.
func onlyVersion(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, ResourceVersion: o.ResourceVersion}}, nil
	case *certificatesv1.ClusterTrustBundle:
		return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: o.Name, ResourceVersion: o.ResourceVersion}}, nil
	case *corev1.Secret:
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, ResourceVersion: o.ResourceVersion}}, nil
	}
	return obj, nil
}

// tell wakes the users of a changed object. The first sight of it counts too: the volume may have been made from an
// older version, or without an optional object that has come since.
func (w *objectWatches) tell(e *objectWatch, version string) {
	w.mu.Lock()
	if e.seen == version && version != "" {
		w.mu.Unlock()
		return
	}
	e.seen = version
	users := make([]types.UID, 0, len(e.users))
	for uid := range e.users {
		users = append(users, uid)
	}
	w.mu.Unlock()
	for _, uid := range users {
		w.changed(uid)
	}
}

// sources are the objects that a pod's volumes show.
func sources(pod *corev1.Pod) map[object]struct{} {
	out := map[object]struct{}{}
	add := func(kind, name string) { out[object{kind, pod.Namespace, name}] = struct{}{} }
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add("ConfigMap", v.ConfigMap.Name)
		case v.Secret != nil:
			add("Secret", v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add("ConfigMap", s.ConfigMap.Name)
				}
				if s.Secret != nil {
					add("Secret", s.Secret.Name)
				}
				if s.ClusterTrustBundle != nil {
					out[object{kind: trustBundles}] = struct{}{}
				}
			}
		}
	}
	return out
}

// refresh brings the pod's live volumes up to date, if there is a reason: an object changed, the pod's own labels or
// annotations did, or a token is due. It returns when the next token is.
func (k *Kubelet) refresh(pod *corev1.Pod, rec *podRecord) time.Time {
	due, start := k.volumes.RefreshAt(pod.UID), false
	rec.with(func() {
		switch {
		case rec.mem.Volumes.Progress == plan.Failed && rec.changed: // what was missing may have come
			rec.mem.Volumes.RetryAt, rec.changed = time.Time{}, false
		case rec.vols == nil || rec.tasks[refreshTask] != nil:
		case rec.changed || rec.shown != nil && !sameMeta(rec.shown, pod) || !due.IsZero() && !time.Now().Before(due):
			start, rec.changed, rec.shown = true, false, pod
		default:
			rec.shown = pod
		}
	})
	if !start {
		return due
	}
	rec.spawn(k.background(), refreshTask, k.waker(pod), func(ctx context.Context) func() {
		err := k.volumes.Refresh(ctx, pod)
		if err != nil && ctx.Err() == nil {
			k.parts.exec.Event(pod, corev1.EventTypeWarning, "FailedMount", "%s", err)
		}
		return func() {}
	})
	return time.Time{} // the task's end brings the worker back here
}

// sourceChanged notes that an object in a pod's volumes changed.
func (k *Kubelet) sourceChanged(uid types.UID) {
	if rec, _ := k.known(uid); rec != nil {
		rec.with(func() { rec.changed = true })
		k.parts.workers.Wake(uid)
	}
}

func sameMeta(a, b *corev1.Pod) bool {
	return maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}
