package persistentvolume

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/claim"
	"keelson.dev/keelson/controlplane/resource/podspec"
	"keelson.dev/keelson/controlplane/resource/resourcename"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// Default sets what a volume has wherever it is told of.
func Default(s *corev1.PersistentVolumeSpec) {
	resourcename.RoundUp(s.Capacity)
	if s.HostPath != nil && s.HostPath.Type == nil {
		unset := corev1.HostPathUnset
		s.HostPath.Type = &unset
	}
	orElse := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	if r := s.RBD; r != nil {
		orElse(&r.RBDPool, "rbd")
		orElse(&r.RadosUser, "admin")
		orElse(&r.Keyring, "/etc/ceph/keyring")
	}
	if i := s.ISCSI; i != nil {
		orElse(&i.ISCSIInterface, "default")
	}
	if s.AzureDisk != nil {
		volumesource.DefaultAzureDisk(s.AzureDisk)
	}
	if s := s.ScaleIO; s != nil {
		orElse(&s.StorageMode, "ThinProvisioned")
		orElse(&s.FSType, "xfs")
	}
}

// Validate checks the spec of the PersistentVolume of that name.
func Validate(s *corev1.PersistentVolumeSpec, name string, at *field.Path) field.ErrorList {
	errs := claim.ValidateAccessModes(s.AccessModes, at.Child("accessModes"), "")
	errs = append(errs, validateCapacity(s.Capacity, at.Child("capacity"))...)
	reclaim := at.Child("persistentVolumeReclaimPolicy")
	if s.PersistentVolumeReclaimPolicy != "" {
		errs = append(errs, check.OneOf(s.PersistentVolumeReclaimPolicy, reclaim,
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
	}
	errs = append(errs, validateAffinity(s.NodeAffinity, at.Child("nodeAffinity"))...)
	errs = append(errs, validateSource(s, name, at)...)
	errs = append(errs, validateRecycled(s, reclaim)...)
	if s.StorageClassName != "" {
		errs = append(errs, volumesource.Name(s.StorageClassName, at.Child("storageClassName"))...)
	}
	if s.VolumeMode != nil {
		errs = append(errs, check.OneOf(*s.VolumeMode, at.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	return append(errs, validateClass(s, at)...)
}

// ValidateInline checks the spec of a volume that has no PersistentVolume: a CSI driver's, and without what binding and
// scheduling would want to know. The name of its class of attributes means nothing here and is not looked at, as upstream.
func ValidateInline(s *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	const inline = " in the context of inline volumes"
	var errs field.ErrorList
	unset := func(name string, set bool) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), "may not be specified"+inline))
		}
	}
	unset("claimRef", s.ClaimRef != nil)
	unset("capacity", len(s.Capacity) > 0)
	if s.CSI == nil {
		errs = append(errs, field.Required(at.Child("csi"), "has to be specified"+inline))
	}
	errs = append(errs, claim.ValidateAccessModes(s.AccessModes, at.Child("accessModes"), "")...)
	reclaim := at.Child("persistentVolumeReclaimPolicy")
	if p := s.PersistentVolumeReclaimPolicy; p != "" && p != corev1.PersistentVolumeReclaimRetain {
		errs = append(errs, field.Forbidden(reclaim, "may only be Retain"+inline))
	}
	unset("nodeAffinity", s.NodeAffinity != nil)
	bare := *s
	bare.NodeAffinity = nil // is not looked at: a local volume misses it all the same
	errs = append(errs, validateSource(&bare, "", at)...)
	errs = append(errs, validateRecycled(s, reclaim)...)
	unset("storageClassName", s.StorageClassName != "")
	if s.VolumeMode != nil && *s.VolumeMode != corev1.PersistentVolumeFilesystem {
		errs = append(errs, field.Forbidden(at.Child("volumeMode"), "may not specify volumeMode other than Filesystem"+inline))
	}
	return errs
}

func validateAffinity(a *corev1.VolumeNodeAffinity, at *field.Path) field.ErrorList {
	if a == nil {
		return nil
	}
	if a.Required == nil {
		return field.ErrorList{field.Required(at.Child("required"), "must specify required node constraints")}
	}
	return podspec.ValidateNodeSelector(a.Required, at.Child("required"))
}

// validateRecycled keeps the root of a node's file system from being emptied.
func validateRecycled(s *corev1.PersistentVolumeSpec, reclaim *field.Path) field.ErrorList {
	if s.HostPath == nil || path.Clean(s.HostPath.Path) != "/" || s.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRecycle {
		return nil
	}
	return field.ErrorList{field.Forbidden(reclaim, "may not be 'recycle' for a hostPath mount of '/'")}
}

func validateClass(s *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	class := s.VolumeAttributesClassName
	if class == nil {
		return nil
	}
	var errs field.ErrorList
	if *class == "" {
		errs = append(errs, field.Required(at.Child("volumeAttributesClassName"), "an empty string is disallowed"))
	} else {
		errs = append(errs, volumesource.Name(*class, at.Child("volumeAttributesClassName"))...)
	}
	if s.CSI == nil {
		errs = append(errs, field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
	}
	return errs
}

func validateCapacity(capacity corev1.ResourceList, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(capacity) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	if _, ok := capacity[corev1.ResourceStorage]; !ok || len(capacity) > 1 {
		errs = append(errs, field.NotSupported(at, capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for name, size := range capacity {
		errs = append(errs, check.Quantity(size.Value(), at.Key(string(name)))...)
		if size.Sign() <= 0 {
			errs = append(errs, field.Invalid(at.Key(string(name)), size.String(), "must be greater than zero"))
		}
	}
	return errs
}
