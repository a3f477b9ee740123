package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/reference"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	// Name is the provisioner that classes name.
	Name = "keelson.dev/local"
	// ClassName is the default class' name.
	ClassName = "local"
	// SizeAnnotation on a volume says whether it is held to its size: "enforced", or "not enforced: " and why.
	SizeAnnotation = "keelson.dev/size"

	// Finalizer holds a volume until its data is gone; the annotations say who made it, for which node, and that a claim is bound. All
	// are upstream's.
	Finalizer     = "external-provisioner.volume.kubernetes.io/finalizer"
	ProvisionedBy = "pv.kubernetes.io/provisioned-by"
	SelectedNode  = "volume.kubernetes.io/selected-node"
	BindCompleted = "pv.kubernetes.io/bind-completed"

	claimKey, volumeKey = "claim/", "volume/"
)

// Disks are a node's volumes. Their methods are idempotent; unheld is why a volume can grow beyond its size, nil if it
// cannot.
type Disks interface {
	Make(name string, bytes int64, block bool) (path string, unheld, err error)
	Grow(name string, bytes int64) (unheld, err error)
	Remove(name string) error
}

type provisioner struct {
	controller.Deps
	node                     string
	disks                    Disks
	claims, volumes, classes cache.SharedIndexInformer
}

// New returns the controller of a node's volumes.
func New(d controller.Deps, node string, disks Disks) (*controller.Loop, error) {
	p := &provisioner{Deps: d, node: node, disks: disks, claims: d.Informers.Core().V1().PersistentVolumeClaims().Informer(),
		volumes: d.Informers.Core().V1().PersistentVolumes().Informer(), classes: d.Informers.Storage().V1().StorageClasses().Informer()}
	loop := controller.NewLoop("local-provisioner", d.Log, 1, p.reconcile)
	loop.Needs(p.classes)
	return loop, errors.Join(
		controller.Watch(loop, p.claims, func(c, _ *corev1.PersistentVolumeClaim) []string {
			return []string{claimKey + c.Namespace + "/" + c.Name}
		}),
		controller.Watch(loop, p.volumes, func(pv, _ *corev1.PersistentVolume) []string { return []string{volumeKey + pv.Name} }))
}

// Class is the class that a new cluster has.
func Class() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: ClassName, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner: Name, ReclaimPolicy: ptr.To(corev1.PersistentVolumeReclaimDelete), AllowVolumeExpansion: ptr.To(true),
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
	}
}

func (p *provisioner) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if name, ok := strings.CutPrefix(key, volumeKey); ok {
		if pv := controller.Get[corev1.PersistentVolume](p.volumes, name); pv != nil && p.ours(pv) {
			return 0, Release(ctx, p.Deps, pv, func() error { return p.disks.Remove(pv.Name) })
		}
		return 0, nil
	}
	claim := controller.Get[corev1.PersistentVolumeClaim](p.claims, strings.TrimPrefix(key, claimKey))
	switch {
	case claim == nil:
		return 0, nil
	case claim.Annotations[BindCompleted] != "":
		return 0, p.grow(ctx, claim)
	}
	class := controller.Get[storagev1.StorageClass](p.classes, ClassOf(claim))
	if class == nil || !p.mine(claim, class) {
		return 0, nil
	}
	if why := refuse(claim, class); why != nil {
		p.Events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "failed to provision volume with StorageClass %q: %s", class.Name, why)
		return 0, nil // until claim or class is another
	}
	return 0, p.provision(ctx, claim, class)
}

// mine tells whether this node is to make the claim's volume.
func (p *provisioner) mine(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) bool {
	node := claim.Annotations[SelectedNode]
	return Asked(claim, class, Name) && (node == p.node || node == "")
}

// Asked tells whether a provisioner is to make the claim's volume now: the binder found none that is there, and the scheduler has chosen a
// node if the class waits for one.
func Asked(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, provisioner string) bool {
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Annotations[BindCompleted] != "" {
		return false
	}
	if class.Provisioner != provisioner || claim.Annotations["volume.kubernetes.io/storage-provisioner"] != provisioner {
		return false
	}
	waits := ptr.Deref(class.VolumeBindingMode, storagev1.VolumeBindingImmediate) == storagev1.VolumeBindingWaitForFirstConsumer
	return claim.Annotations[SelectedNode] != "" || !waits
}

// refuse says what a claim or class asks that cannot be had.
func refuse(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	switch {
	case len(class.Parameters) > 0:
		names := make([]string, 0, len(class.Parameters))
		for name := range class.Parameters {
			names = append(names, fmt.Sprintf("%q", name))
		}
		slices.Sort(names)
		return fmt.Errorf("%s takes no parameters, the class has %s", Name, strings.Join(names, ", "))
	case len(class.MountOptions) > 0:
		return fmt.Errorf("%s takes no mountOptions", Name)
	case claim.Spec.Selector != nil:
		return errors.New("claim.spec.selector is not supported for a volume that is to be made")
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return fmt.Errorf("%s makes empty volumes only: claim.spec.dataSource is not supported", Name)
	}
	return nil
}

func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	name := VolumeName(claim)
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	block := ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) == corev1.PersistentVolumeBlock
	path, unheld, err := p.disks.Make(name, size.Value(), block)
	if err != nil {
		p.Events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "failed to provision volume with StorageClass %q: %s", class.Name, err)
		return err
	}
	ref, err := reference.GetReference(scheme.Scheme, claim)
	if err != nil {
		return err
	}
	mode := corev1.PersistentVolumeFilesystem
	if block {
		mode = corev1.PersistentVolumeBlock
	}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{Finalizer},
			Annotations: map[string]string{ProvisionedBy: Name, SizeAnnotation: held(unheld)}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: size}, AccessModes: claim.Spec.AccessModes, ClaimRef: ref, StorageClassName: class.Name, VolumeMode: &mode,
			PersistentVolumeReclaimPolicy: ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node}}}}}}},
		},
	}
	if _, err := p.Client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	} else if err == nil {
		p.Events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", name)
		p.tell(claim, unheld)
	}
	return nil
}

func held(unheld error) string {
	if unheld == nil {
		return "enforced"
	}
	return "not enforced: " + unheld.Error()
}

func (p *provisioner) tell(claim *corev1.PersistentVolumeClaim, unheld error) {
	if unheld != nil {
		p.Events.Eventf(claim, corev1.EventTypeNormal, "SizeNotEnforced", "The volume can grow beyond the size of its claim: %s", unheld)
	}
}

// ours tells whether this node made a volume.
func (p *provisioner) ours(pv *corev1.PersistentVolume) bool {
	if pv.Annotations[ProvisionedBy] != Name || pv.Spec.Local == nil || pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return false
	}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && slices.Contains(f.Values, p.node) {
				return true
			}
		}
	}
	return false
}

// Release removes a volume that nobody claims any more, its data first: remove is idempotent. It may be called about any volume of the caller's.
func Release(ctx context.Context, d controller.Deps, pv *corev1.PersistentVolume, remove func() error) error {
	unclaimed := pv.Status.Phase == corev1.VolumeReleased || pv.Status.Phase == corev1.VolumeFailed
	deletes := pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	guarded := slices.Contains(pv.Finalizers, "kubernetes.io/pv-protection") && pv.Status.Phase == corev1.VolumeBound
	goes := pv.DeletionTimestamp != nil && !guarded
	if deletes && (goes || unclaimed && pv.DeletionTimestamp == nil) {
		if err := remove(); err != nil {
			d.Events.Eventf(pv, corev1.EventTypeWarning, "VolumeFailedDelete", "%s", err)
			return err
		}
	}
	switch {
	case goes:
		return letGo(ctx, d, pv)
	case unclaimed && deletes && pv.DeletionTimestamp == nil:
		err := d.Client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pv.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return nil
}

func letGo(ctx context.Context, d controller.Deps, pv *corev1.PersistentVolume) error {
	if !slices.Contains(pv.Finalizers, Finalizer) {
		return nil
	}
	pv = pv.DeepCopy()
	pv.Finalizers = slices.DeleteFunc(pv.Finalizers, func(f string) bool { return f == Finalizer })
	_, err := d.Client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// VolumeName is the name of the volume that is made for a claim.
func VolumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// ClassOf is the name of a claim's class, "" for none.
func ClassOf(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return ptr.Deref(claim.Spec.StorageClassName, "")
}
