package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/reference"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/provision"
)

type provisioner struct{ *base }

// NewProvisioner returns the controller that makes, grows and deletes drivers' volumes.
func NewProvisioner(d controller.Deps, drivers Drivers) (*controller.Loop, error) {
	p := &provisioner{newBase(d, drivers)}
	loop := controller.NewLoop("csi-provisioner", d.Log, 4, p.reconcile)
	loop.Needs(p.classes, p.objects, p.csiNodes, p.nodes)
	err := errors.Join(
		controller.Watch(loop, p.claims, func(c, _ *corev1.PersistentVolumeClaim) []string {
			return []string{claimKey + c.Namespace + "/" + c.Name}
		}),
		controller.Watch(loop, p.volumes, func(pv, _ *corev1.PersistentVolume) []string { return []string{volumeKey + pv.Name} }),
		controller.Watch(loop, p.attachments, func(a, _ *storagev1.VolumeAttachment) []string {
			return []string{volumeKey + ptr.Deref(a.Spec.Source.PersistentVolumeName, "")} // it may be what a deletion waits for
		}))
	drivers.Watch(func(string) {
		for _, c := range each[corev1.PersistentVolumeClaim](p.claims) {
			loop.Add(claimKey + c.Namespace + "/" + c.Name)
		}
		for _, pv := range each[corev1.PersistentVolume](p.volumes) {
			loop.Add(volumeKey + pv.Name)
		}
	})
	return loop, err
}

func (p *provisioner) reconcile(ctx context.Context, key string) (time.Duration, error) {
	claimName, volumeName := cut(key)
	if pv := p.csiVolume(volumeName); pv != nil && pv.Annotations[provision.ProvisionedBy] == pv.Spec.CSI.Driver {
		return 0, p.release(ctx, pv)
	}
	claim := controller.Get[corev1.PersistentVolumeClaim](p.claims, claimName)
	switch {
	case claim == nil:
		return 0, nil
	case claim.Annotations[provision.BindCompleted] != "":
		return 0, p.grow(ctx, claim)
	}
	class := controller.Get[storagev1.StorageClass](p.classes, provision.ClassOf(claim))
	if class == nil || !provision.Asked(claim, class, class.Provisioner) {
		return 0, nil
	}
	s, err := p.service(ctx, class.Provisioner)
	if err != nil || s == nil || !s.can[spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME] {
		return 0, err
	}
	if err := p.provision(ctx, s, claim, class); err != nil {
		p.Events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "failed to provision volume with StorageClass %q: %s", class.Name, err)
		return 0, p.giveUp(ctx, claim, err)
	}
	return 0, nil
}

// giveUp has a claim's pod go elsewhere when its node's storage is full, as the scheduler expects it.
func (p *provisioner) giveUp(ctx context.Context, claim *corev1.PersistentVolumeClaim, why error) error {
	if status.Code(errors.Unwrap(why)) != codes.ResourceExhausted || claim.Annotations[provision.SelectedNode] == "" {
		return why
	}
	claim = claim.DeepCopy()
	delete(claim.Annotations, provision.SelectedNode)
	_, err := p.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
	return err
}

func (p *provisioner) provision(ctx context.Context, s *service, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	if claim.Spec.Selector != nil {
		return errors.New("claim.spec.selector is not supported for a volume that is to be made")
	}
	name := provision.VolumeName(claim)
	params, err := readParameters(class.Parameters, claim, name)
	if err != nil {
		return err
	}
	secrets, err := p.secret(ctx, params.secrets["provisioner"])
	if err != nil {
		return err
	}
	source, err := p.content(claim, s)
	if err != nil {
		return err
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	request := &spec.CreateVolumeRequest{Name: name, CapacityRange: &spec.CapacityRange{RequiredBytes: size.Value()}, Parameters: params.own, Secrets: secrets,
		VolumeCapabilities:  capabilities(claim.Spec.AccessModes, claim.Spec.VolumeMode, params.fsType, class.MountOptions, s.single()),
		VolumeContentSource: source, AccessibilityRequirements: p.topology(claim, class)}
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	answer, err := s.CreateVolume(limited, request)
	if err != nil {
		return fmt.Errorf("CreateVolume: %w", err)
	}
	pv, err := volumeFor(claim, class, params, answer.GetVolume())
	if err != nil {
		return err
	}
	if _, err := p.Client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		return nil
	} else if err != nil {
		return err
	}
	p.Events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", name)
	return nil
}

// content is the volume that a new one is to be a copy of; nil for an empty one.
func (p *provisioner) content(claim *corev1.PersistentVolumeClaim, s *service) (*spec.VolumeContentSource, error) {
	from := claim.Spec.DataSource
	if from == nil {
		if claim.Spec.DataSourceRef != nil {
			return nil, fmt.Errorf("claim.spec.dataSourceRef of the kind %s is not supported", claim.Spec.DataSourceRef.Kind)
		}
		return nil, nil
	}
	if from.Kind != "PersistentVolumeClaim" {
		return nil, fmt.Errorf("claim.spec.dataSource of the kind %s is not supported", from.Kind)
	}
	other := controller.Get[corev1.PersistentVolumeClaim](p.claims, claim.Namespace+"/"+from.Name)
	if other == nil || other.Status.Phase != corev1.ClaimBound {
		return nil, fmt.Errorf("the claim %q to be copied is not bound", from.Name)
	}
	pv := p.csiVolume(other.Spec.VolumeName)
	if pv == nil || !s.can[spec.ControllerServiceCapability_RPC_CLONE_VOLUME] || pv.Spec.StorageClassName != "" && provision.ClassOf(other) != pv.Spec.StorageClassName {
		return nil, fmt.Errorf("the driver cannot copy the volume of claim %q", from.Name)
	}
	return &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: pv.Spec.CSI.VolumeHandle}}}, nil
}

// topology is where the volume has to be of use: on the node that was chosen, or anywhere the driver runs and the class allows.
func (p *provisioner) topology(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) *spec.TopologyRequirement {
	var out spec.TopologyRequirement
	chosen := claim.Annotations[provision.SelectedNode]
	for _, n := range each[corev1.Node](p.nodes) {
		d := p.onNode(n.Name, class.Provisioner)
		if d == nil || len(d.TopologyKeys) == 0 || chosen != "" && n.Name != chosen || !allowed(class, n) {
			continue
		}
		t := &spec.Topology{Segments: map[string]string{}}
		for _, k := range d.TopologyKeys {
			t.Segments[k] = n.Labels[k]
		}
		if !slices.ContainsFunc(out.Requisite, func(o *spec.Topology) bool { return maps.Equal(o.Segments, t.Segments) }) {
			out.Requisite, out.Preferred = append(out.Requisite, t), append(out.Preferred, t)
		}
	}
	if len(out.Requisite) == 0 {
		return nil
	}
	return &out
}

func allowed(class *storagev1.StorageClass, n *corev1.Node) bool {
	return len(class.AllowedTopologies) == 0 || slices.ContainsFunc(class.AllowedTopologies, func(t corev1.TopologySelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchLabelExpressions, func(e corev1.TopologySelectorLabelRequirement) bool {
			return !slices.Contains(e.Values, n.Labels[e.Key])
		})
	})
}

// volumeFor is the object of a volume that a driver made. It is pure.
func volumeFor(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, params parameters, made *spec.Volume) (*corev1.PersistentVolume, error) {
	ref, err := reference.GetReference(scheme.Scheme, claim)
	if err != nil {
		return nil, err
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	switch {
	case made.GetVolumeId() == "":
		return nil, errors.New("CreateVolume: the driver's volume has no ID")
	case made.CapacityBytes > 0 && made.CapacityBytes < size.Value():
		return nil, fmt.Errorf("CreateVolume: the driver's volume has %d bytes, less than the %d that were asked", made.CapacityBytes, size.Value())
	case made.CapacityBytes > size.Value():
		size.Set(made.CapacityBytes)
	}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: provision.VolumeName(claim), Finalizers: []string{provision.Finalizer}, Annotations: map[string]string{provision.ProvisionedBy: class.Provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: size}, AccessModes: claim.Spec.AccessModes, ClaimRef: ref, StorageClassName: class.Name,
			VolumeMode: ptr.To(ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)), MountOptions: class.MountOptions,
			PersistentVolumeReclaimPolicy: ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: class.Provisioner, VolumeHandle: made.VolumeId, FSType: params.fsType, VolumeAttributes: made.VolumeContext,
				ControllerPublishSecretRef: params.secrets["controller-publish"], NodeStageSecretRef: params.secrets["node-stage"],
				NodePublishSecretRef: params.secrets["node-publish"], ControllerExpandSecretRef: params.secrets["controller-expand"], NodeExpandSecretRef: params.secrets["node-expand"]}},
		},
	}
	if ref := params.secrets["provisioner"]; ref != nil {
		pv.Annotations[deletionSecret+"name"], pv.Annotations[deletionSecret+"namespace"] = ref.Name, ref.Namespace
	}
	var terms []corev1.NodeSelectorTerm
	for _, t := range made.AccessibleTopology {
		var term corev1.NodeSelectorTerm
		for _, k := range slices.Sorted(maps.Keys(t.Segments)) {
			term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{Key: k, Operator: corev1.NodeSelectorOpIn, Values: []string{t.Segments[k]}})
		}
		if len(term.MatchExpressions) > 0 {
			terms = append(terms, term)
		}
	}
	if len(terms) > 0 {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}}
	}
	return pv, nil
}

// deletionSecret begins the annotations that name the secret for a volume's end, as upstream's.
const deletionSecret = "volume.kubernetes.io/provisioner-deletion-secret-"

// release deletes a volume that nobody claims any more, once it is attached nowhere.
func (p *provisioner) release(ctx context.Context, pv *corev1.PersistentVolume) error {
	s, err := p.service(ctx, pv.Spec.CSI.Driver)
	if err != nil || s == nil {
		return err
	}
	for _, a := range each[storagev1.VolumeAttachment](p.attachments) {
		if ptr.Deref(a.Spec.Source.PersistentVolumeName, "") == pv.Name {
			return nil // its end leads here again
		}
	}
	return provision.Release(ctx, p.Deps, pv, func() error {
		var ref *corev1.SecretReference
		if name := pv.Annotations[deletionSecret+"name"]; name != "" {
			ref = &corev1.SecretReference{Name: name, Namespace: pv.Annotations[deletionSecret+"namespace"]}
		}
		secrets, err := p.secret(ctx, ref)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		if _, err := s.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle, Secrets: secrets}); err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("DeleteVolume: %w", err)
		}
		return nil
	})
}
