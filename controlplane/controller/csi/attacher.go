package csi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

// nodeIDAnnotation keeps the node's ID on an attachment: the node may be gone when the volume is detached.
const nodeIDAnnotation = "csi.alpha.kubernetes.io/node-id"

// attacher has drivers attach and detach.
type attacher struct{ *base }

// NewAttacher returns the controller that carries VolumeAttachments out.
func NewAttacher(d controller.Deps, drivers Drivers) (*controller.Loop, error) {
	a := &attacher{newBase(d, drivers)}
	loop := controller.NewLoop("csi-attacher", d.Log, 4, a.reconcile)
	loop.Needs(a.volumes, a.objects, a.csiNodes)
	drivers.Watch(func(driver string) {
		for _, v := range each[storagev1.VolumeAttachment](a.attachments) {
			if v.Spec.Attacher == driver {
				loop.Add(v.Name)
			}
		}
	})
	return loop, errors.Join(controller.Watch(loop, a.attachments, func(v, _ *storagev1.VolumeAttachment) []string { return []string{v.Name} }))
}

func (a *attacher) reconcile(ctx context.Context, name string) (time.Duration, error) {
	v := controller.Get[storagev1.VolumeAttachment](a.attachments, name)
	if v == nil {
		return 0, nil
	}
	s, err := a.service(ctx, v.Spec.Attacher)
	if err != nil || s == nil {
		return 0, err
	}
	switch {
	case v.DeletionTimestamp != nil:
		err = a.unpublish(ctx, s, v)
	case v.Status.Attached:
		return 0, nil
	case !s.can[spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME]:
		return 0, a.write(ctx, v, func(st *storagev1.VolumeAttachmentStatus) { *st = storagev1.VolumeAttachmentStatus{Attached: true} })
	default:
		err = a.publish(ctx, s, v)
	}
	if err == nil || apierrors.IsConflict(err) {
		return 0, err
	}
	said := &storagev1.VolumeError{Time: metav1.Now(), Message: err.Error()}
	return 0, errors.Join(err, a.write(ctx, v, func(st *storagev1.VolumeAttachmentStatus) {
		if v.DeletionTimestamp != nil {
			st.DetachError = said
		} else {
			st.AttachError = said
		}
	}))
}

// publish attaches: the finalizers first, so that neither attachment nor volume goes before the driver has detached it.
func (a *attacher) publish(ctx context.Context, s *service, v *storagev1.VolumeAttachment) error {
	pv := a.csiVolume(ptr.Deref(v.Spec.Source.PersistentVolumeName, ""))
	if pv == nil {
		return errors.New("the volume is not there or not of CSI")
	}
	if pv.DeletionTimestamp != nil {
		return fmt.Errorf("volume %s is being deleted", pv.Name)
	}
	d := a.onNode(v.Spec.NodeName, v.Spec.Attacher)
	if d == nil {
		return fmt.Errorf("CSINode %s does not contain driver %s", v.Spec.NodeName, v.Spec.Attacher)
	}
	finalizer := attacherFinalizer(v.Spec.Attacher)
	if !slices.Contains(pv.Finalizers, finalizer) {
		next := pv.DeepCopy()
		next.Finalizers = append(next.Finalizers, finalizer)
		if _, err := a.Client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if !slices.Contains(v.Finalizers, finalizer) || v.Annotations[nodeIDAnnotation] != d.NodeID {
		next := v.DeepCopy()
		if !slices.Contains(next.Finalizers, finalizer) {
			next.Finalizers = append(next.Finalizers, finalizer)
		}
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, nodeIDAnnotation, d.NodeID)
		_, err := a.Client.StorageV1().VolumeAttachments().Update(ctx, next, metav1.UpdateOptions{})
		return err // the change brings it here again
	}
	secrets, err := a.secret(ctx, pv.Spec.CSI.ControllerPublishSecretRef)
	if err != nil {
		return err
	}
	request := &spec.ControllerPublishVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle, NodeId: d.NodeID, Secrets: secrets, VolumeContext: pv.Spec.CSI.VolumeAttributes,
		Readonly: pv.Spec.CSI.ReadOnly && s.can[spec.ControllerServiceCapability_RPC_PUBLISH_READONLY]}
	if all := capabilities(pv.Spec.AccessModes, pv.Spec.VolumeMode, pv.Spec.CSI.FSType, pv.Spec.MountOptions, s.single()); len(all) > 0 {
		request.VolumeCapability = all[0]
	}
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	answer, err := s.ControllerPublishVolume(limited, request)
	if err != nil {
		return fmt.Errorf("ControllerPublishVolume: %w", err)
	}
	return a.write(ctx, v, func(st *storagev1.VolumeAttachmentStatus) {
		*st = storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: answer.PublishContext}
	})
}

// unpublish detaches, then lets the attachment go, and the volume with the last one.
func (a *attacher) unpublish(ctx context.Context, s *service, v *storagev1.VolumeAttachment) error {
	finalizer := attacherFinalizer(v.Spec.Attacher)
	if !slices.Contains(v.Finalizers, finalizer) {
		return nil
	}
	pv := a.csiVolume(ptr.Deref(v.Spec.Source.PersistentVolumeName, ""))
	if pv != nil {
		secrets, err := a.secret(ctx, pv.Spec.CSI.ControllerPublishSecretRef)
		if err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		_, err = s.ControllerUnpublishVolume(limited, &spec.ControllerUnpublishVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle, NodeId: v.Annotations[nodeIDAnnotation], Secrets: secrets})
		if err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("ControllerUnpublishVolume: %w", err)
		}
		if err := a.letGo(ctx, pv, v, finalizer); err != nil {
			return err
		}
	}
	next := v.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == finalizer })
	_, err := a.Client.StorageV1().VolumeAttachments().Update(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// letGo takes the finalizer off a volume that no other attachment has.
func (a *attacher) letGo(ctx context.Context, pv *corev1.PersistentVolume, v *storagev1.VolumeAttachment, finalizer string) error {
	others := slices.ContainsFunc(each[storagev1.VolumeAttachment](a.attachments), func(o *storagev1.VolumeAttachment) bool {
		return o.UID != v.UID && ptr.Deref(o.Spec.Source.PersistentVolumeName, "") == pv.Name
	})
	if others || !slices.Contains(pv.Finalizers, finalizer) {
		return nil
	}
	next := pv.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == finalizer })
	_, err := a.Client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (a *attacher) write(ctx context.Context, v *storagev1.VolumeAttachment, change func(*storagev1.VolumeAttachmentStatus)) error {
	next := v.DeepCopy()
	change(&next.Status)
	_, err := a.Client.StorageV1().VolumeAttachments().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
