package persistentvolume

import (
	"context"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	bindCompleted     = "pv.kubernetes.io/bind-completed"
	boundByController = "pv.kubernetes.io/bound-by-controller"
	provisionedBy     = "pv.kubernetes.io/provisioned-by"
	provisioner       = "volume.kubernetes.io/storage-provisioner"
	betaProvisioner   = "volume.beta.kubernetes.io/storage-provisioner"
	selectedNode      = "volume.kubernetes.io/selected-node"
	noProvisioner     = "kubernetes.io/no-provisioner"

	claimKey, volumeKey = "claim/", "volume/"
	// retryAfter is when a claim that waits for somebody is looked at again, so that its events stay fresh.
	retryAfter = 15 * time.Second
)

type binder struct {
	controller.Deps
	loop                            *controller.Loop
	claims, volumes, classes, nodes cache.SharedIndexInformer
	recycleImage                    string
}

// Recycler is the image of the pod that empties a volume with the reclaim policy Recycle: it is run as `hello scrub DIR`.
type Recycler string

// New returns the controller. Its keys are "claim/<namespace>/<name>" and "volume/<name>".
func New(d controller.Deps, recycler Recycler) (*controller.Loop, error) {
	core := d.Informers.Core().V1()
	b := &binder{Deps: d, claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(),
		classes: d.Informers.Storage().V1().StorageClasses().Informer(), nodes: core.Nodes().Informer(), recycleImage: string(recycler)}
	b.loop = controller.NewLoop("persistentvolume-binder", d.Log, 1, b.reconcile)
	b.loop.Needs(b.nodes)
	return b.loop, errors.Join(
		controller.Watch(b.loop, b.claims, func(c, _ *corev1.PersistentVolumeClaim) []string {
			keys := []string{claimKey + c.Namespace + "/" + c.Name}
			if c.Spec.VolumeName != "" {
				keys = append(keys, volumeKey+c.Spec.VolumeName)
			}
			return keys
		}),
		controller.Watch(b.loop, b.volumes, func(pv, old *corev1.PersistentVolume) []string {
			keys := []string{volumeKey + pv.Name}
			if r := pv.Spec.ClaimRef; r != nil {
				return append(keys, claimKey+r.Namespace+"/"+r.Name)
			}
			return append(keys, b.unbound()...) // a free volume may be what somebody waits for
		}),
		controller.Watch(b.loop, b.classes, func(*storagev1.StorageClass, *storagev1.StorageClass) []string { return b.unbound() }))
}

// unbound lists the claims that still want a volume.
func (b *binder) unbound() []string {
	var out []string
	for _, obj := range b.claims.GetIndexer().List() {
		if c := obj.(*corev1.PersistentVolumeClaim); c.Annotations[bindCompleted] == "" {
			out = append(out, claimKey+c.Namespace+"/"+c.Name)
		}
	}
	return out
}

func (b *binder) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if name, ok := strings.CutPrefix(key, volumeKey); ok {
		if pv := controller.Get[corev1.PersistentVolume](b.volumes, name); pv != nil {
			return b.volume(ctx, pv)
		}
		return 0, nil
	}
	claim := controller.Get[corev1.PersistentVolumeClaim](b.claims, strings.TrimPrefix(key, claimKey))
	if claim == nil {
		return 0, nil
	}
	if claim.Annotations[bindCompleted] != "" {
		return 0, b.bound(ctx, claim)
	}
	return b.pending(ctx, claim)
}
