package csi

import (
	"context"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller/provision"
)

// grow makes a bound claim's volume as large as the claim asks by now; what is left to do on the node, its kubelet does.
func (p *provisioner) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	pv := p.csiVolume(claim.Spec.VolumeName)
	wants, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	if pv == nil || claim.Status.Phase != corev1.ClaimBound || wants.Cmp(has) <= 0 {
		return nil
	}
	if c := pv.Spec.Capacity[corev1.ResourceStorage]; c.Cmp(wants) >= 0 {
		return nil // it is the node's turn
	}
	s, err := p.service(ctx, pv.Spec.CSI.Driver)
	if err != nil || s == nil {
		return err
	}
	size, node := wants, true
	if s.can[spec.ControllerServiceCapability_RPC_EXPAND_VOLUME] {
		if size, node, err = p.expand(ctx, s, pv, wants); err != nil {
			p.Events.Eventf(claim, corev1.EventTypeWarning, "VolumeResizeFailed", "resize volume %q: %s", pv.Name, err)
			return err
		}
	}
	// The claim's condition comes first: the volume's size is what the kubelet acts on.
	next := claim.DeepCopy()
	next.Status.AllocatedResources = corev1.ResourceList{corev1.ResourceStorage: size}
	next.Status.Conditions = provision.WithoutResize(next.Status.Conditions)
	if node {
		next.Status.Conditions = append(next.Status.Conditions, corev1.PersistentVolumeClaimCondition{Type: corev1.PersistentVolumeClaimFileSystemResizePending,
			Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(), Message: "Waiting for user to (re-)start a pod to finish file system resize of volume on node."})
	} else {
		next.Status.Capacity[corev1.ResourceStorage] = size
	}
	pv = pv.DeepCopy()
	pv.Spec.Capacity[corev1.ResourceStorage] = size
	if node {
		if _, err := p.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if _, err := p.Client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if !node {
		if _, err := p.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return err
		}
		p.Events.Eventf(claim, corev1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
		return nil
	}
	p.Events.Eventf(claim, corev1.EventTypeNormal, "FileSystemResizeRequired", "Require file system resize of volume on node")
	p.drivers.Grown(pv.Name)
	return nil
}

// expand asks the driver. node tells whether the node has something left to do.
func (p *provisioner) expand(ctx context.Context, s *service, pv *corev1.PersistentVolume, wants resource.Quantity) (size resource.Quantity, node bool, err error) {
	secrets, err := p.secret(ctx, pv.Spec.CSI.ControllerExpandSecretRef)
	if err != nil {
		return wants, false, err
	}
	request := &spec.ControllerExpandVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle, CapacityRange: &spec.CapacityRange{RequiredBytes: wants.Value()}, Secrets: secrets}
	if all := capabilities(pv.Spec.AccessModes, ptr.To(ptr.Deref(pv.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)), pv.Spec.CSI.FSType, pv.Spec.MountOptions, s.single()); len(all) > 0 {
		request.VolumeCapability = all[0]
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	answer, err := s.ControllerExpandVolume(ctx, request)
	if err != nil {
		return wants, false, fmt.Errorf("ControllerExpandVolume: %w", err)
	}
	if answer.CapacityBytes > wants.Value() {
		wants.Set(answer.CapacityBytes)
	}
	return wants, answer.NodeExpansionRequired, nil
}
