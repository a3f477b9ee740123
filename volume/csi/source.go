package csi

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/volume"
)

var errNotDir = error(syscall.ENOTDIR)

// source is what a pod's volume asks of a driver, from whichever object says it.
type source struct {
	record
	fsType     string
	attributes map[string]string
	options    []string
	mode       corev1.PersistentVolumeAccessMode
	modes      []corev1.PersistentVolumeAccessMode
	readOnly   bool

	stageSecret, publishSecret, expandSecret *corev1.SecretReference
}

// sourceOf reads a request. It is pure.
func sourceOf(r volume.Request, node string) source {
	if inline := r.Volume.CSI; r.Persistent == nil {
		s := source{record: record{Driver: inline.Driver, Handle: inlineHandle(string(r.Pod.UID), r.Volume.Name), Volume: r.Volume.Name, Node: node, Lifecycle: ephemeral},
			fsType: ptr.Deref(inline.FSType, ""), attributes: inline.VolumeAttributes, readOnly: ptr.Deref(inline.ReadOnly, false), mode: corev1.ReadWriteOnce}
		if ref := inline.NodePublishSecretRef; ref != nil {
			s.publishSecret = &corev1.SecretReference{Namespace: r.Pod.Namespace, Name: ref.Name}
		}
		return s
	}
	pv := r.Persistent
	csi := pv.Spec.CSI
	s := source{record: record{Driver: csi.Driver, Handle: csi.VolumeHandle, Volume: pv.Name, Node: node, Lifecycle: persistent,
		Block: ptr.Deref(pv.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) == corev1.PersistentVolumeBlock},
		fsType: csi.FSType, attributes: csi.VolumeAttributes, options: pv.Spec.MountOptions, readOnly: r.ReadOnly || csi.ReadOnly,
		mode: corev1.ReadWriteOnce, modes: pv.Spec.AccessModes,
		stageSecret: csi.NodeStageSecretRef, publishSecret: csi.NodePublishSecretRef, expandSecret: csi.NodeExpandSecretRef}
	if len(s.modes) > 0 {
		s.mode = s.modes[0]
	}
	return s
}

// lives says why a driver does not serve volumes of this life. A driver without an object serves what claims are bound to.
func (s source) lives(object *storagev1.CSIDriver) error {
	modes := []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	if object != nil && len(object.Spec.VolumeLifecycleModes) > 0 {
		modes = object.Spec.VolumeLifecycleModes
	}
	if slices.Contains(modes, storagev1.VolumeLifecycleMode(s.Lifecycle)) {
		return nil
	}
	if object == nil {
		return fmt.Errorf("volume mode %q not supported by driver %s: there is no CSIDriver object that says so", s.Lifecycle, s.Driver)
	}
	return fmt.Errorf("volume mode %q not supported by driver %s (only supports %v)", s.Lifecycle, s.Driver, modes)
}

// attaches tells whether the volume has to be attached to the node before it is of use. Without an object it has to.
func (s source) attaches(object *storagev1.CSIDriver) bool {
	return s.Lifecycle == persistent && (object == nil || ptr.Deref(object.Spec.AttachRequired, true))
}

// owned tells whether the node gives the volume's files to the pod's group.
func (s source) owned(object *storagev1.CSIDriver, d *Driver) bool {
	if s.readOnly || s.Block || d.can[spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP] {
		return false
	}
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if object != nil && object.Spec.FSGroupPolicy != nil {
		policy = *object.Spec.FSGroupPolicy
	}
	switch policy {
	case storagev1.NoneFSGroupPolicy:
		return false
	case storagev1.FileFSGroupPolicy:
		return true
	}
	once := s.Lifecycle == ephemeral || slices.ContainsFunc(s.modes, func(m corev1.PersistentVolumeAccessMode) bool {
		return m == corev1.ReadWriteOnce || m == corev1.ReadWriteOncePod
	})
	return s.fsType != "" && once
}

// capability is the use that the volume is made ready for.
func (s source) capability(d *Driver, group *int64) *spec.VolumeCapability {
	multi := d.can[spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER]
	c := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: accessMode(s.mode, multi)}}
	if s.Block {
		c.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		return c
	}
	m := &spec.VolumeCapability_MountVolume{FsType: s.fsType, MountFlags: s.options}
	if group != nil && d.can[spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP] {
		m.VolumeMountGroup = strconv.FormatInt(*group, 10)
	}
	c.AccessType = &spec.VolumeCapability_Mount{Mount: m}
	return c
}

// accessMode is the specification's word for an access mode; a driver that tells single writers apart says so.
func accessMode(m corev1.PersistentVolumeAccessMode, multi bool) spec.VolumeCapability_AccessMode_Mode {
	switch {
	case m == corev1.ReadOnlyMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case m == corev1.ReadWriteMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case m == corev1.ReadWriteOncePod && multi:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case multi:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	return spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
}

// podInfo adds to a volume's attributes what the driver wants to know of the pod.
func (s source) podInfo(object *storagev1.CSIDriver, pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	for k, v := range s.attributes {
		out[k] = v
	}
	if object == nil || !ptr.Deref(object.Spec.PodInfoOnMount, false) {
		return out
	}
	out["csi.storage.k8s.io/pod.name"] = pod.Name
	out["csi.storage.k8s.io/pod.namespace"] = pod.Namespace
	out["csi.storage.k8s.io/pod.uid"] = string(pod.UID)
	out["csi.storage.k8s.io/serviceAccount.name"] = pod.Spec.ServiceAccountName
	out["csi.storage.k8s.io/ephemeral"] = strconv.FormatBool(s.Lifecycle == ephemeral)
	return out
}

// check refuses names that would lead out of their folder: they come from the API and become paths.
func (s source) check() error {
	for _, name := range []string{s.Driver, s.Volume} {
		if name == "" || name == "." || name == ".." || slices.Contains([]byte(name), '/') {
			return fmt.Errorf("%q is not usable as a folder name", name)
		}
	}
	if s.Handle == "" {
		return errors.New("the volume has no handle")
	}
	return nil
}
