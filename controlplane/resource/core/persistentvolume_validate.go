package core

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/claim"
	"keelson.dev/keelson/controlplane/resource/podspec"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

func validateVolume(v *corev1.PersistentVolume) field.ErrorList {
	at, spec := field.NewPath("spec"), &v.Spec
	errs := claim.ValidateAccessModes(spec.AccessModes, at.Child("accessModes"), "")
	errs = append(errs, validateCapacity(spec.Capacity, at.Child("capacity"))...)
	reclaim := at.Child("persistentVolumeReclaimPolicy")
	if spec.PersistentVolumeReclaimPolicy != "" {
		errs = append(errs, check.OneOf(spec.PersistentVolumeReclaimPolicy, reclaim,
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
	}
	if a := spec.NodeAffinity; a != nil {
		if a.Required == nil {
			errs = append(errs, field.Required(at.Child("nodeAffinity", "required"), "must specify required node constraints"))
		} else {
			errs = append(errs, podspec.ValidateNodeSelector(a.Required, at.Child("nodeAffinity", "required"))...)
		}
	}
	errs = append(errs, validatePersistentSource(v, at)...)
	if spec.HostPath != nil && path.Clean(spec.HostPath.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(reclaim, "may not be 'recycle' for a hostPath mount of '/'"))
	}
	if spec.StorageClassName != "" {
		errs = append(errs, volumesource.Name(spec.StorageClassName, at.Child("storageClassName"))...)
	}
	if spec.VolumeMode != nil {
		errs = append(errs, check.OneOf(*spec.VolumeMode, at.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if class := spec.VolumeAttributesClassName; class != nil {
		if *class == "" {
			errs = append(errs, field.Required(at.Child("volumeAttributesClassName"), "an empty string is disallowed"))
		} else {
			errs = append(errs, volumesource.Name(*class, at.Child("volumeAttributesClassName"))...)
		}
		if spec.CSI == nil {
			errs = append(errs, field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return append(errs, validateMountOptions(v)...)
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
		errs = append(errs, basicQuantity(size.Value(), at.Key(string(name)))...)
		if size.Sign() <= 0 {
			errs = append(errs, field.Invalid(at.Key(string(name)), size.String(), "must be greater than zero"))
		}
	}
	return errs
}

func basicQuantity(value int64, at *field.Path) field.ErrorList {
	if value < 0 {
		return field.ErrorList{field.Invalid(at, value, "must be a valid resource quantity")}
	}
	return nil
}

// validateMountOptions refuses the annotation, the options' old form, for what is not mounted with options.
func validateMountOptions(v *corev1.PersistentVolume) field.ErrorList {
	if _, annotated := v.Annotations[corev1.MountOptionAnnotation]; !annotated {
		return nil
	}
	s := &v.Spec
	if s.GCEPersistentDisk != nil || s.AWSElasticBlockStore != nil || s.Glusterfs != nil || s.NFS != nil || s.RBD != nil ||
		s.Quobyte != nil || s.ISCSI != nil || s.Cinder != nil || s.CephFS != nil || s.AzureFile != nil || s.VsphereVolume != nil ||
		s.AzureDisk != nil || s.PhotonPersistentDisk != nil {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("metadata", "annotations", corev1.MountOptionAnnotation),
		"may not specify mount options for this volume type")}
}

// oldVolumeLabels are the labels whose successors an update may name in their place.
var oldVolumeLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os": corev1.LabelOSStable, "beta.kubernetes.io/arch": corev1.LabelArchStable,
	corev1.LabelInstanceType: corev1.LabelInstanceTypeStable,
}

func validateVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	errs := validateVolume(v)
	source := v.Spec.PersistentVolumeSource
	if source.CSI != nil && old.Spec.CSI != nil && old.Spec.CSI.ControllerExpandSecretRef == nil {
		csi := *source.CSI // this one secret may be added later
		csi.ControllerExpandSecretRef = nil
		source.CSI = &csi
	}
	if !equality.Semantic.DeepEqual(source, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"),
			fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v", diff.Diff(check.Shown(old.Spec.PersistentVolumeSource), check.Shown(source)))))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Spec.NodeAffinity != nil && !sameAffinity(v.Spec.NodeAffinity, old.Spec.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), v.Spec.NodeAffinity,
			apivalidation.FieldImmutableErrorMsg+", except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// sameAffinity compares after giving old labels their new names where the new affinity has them.
func sameAffinity(now, was *corev1.VolumeNodeAffinity) bool {
	if now == nil || now.Required == nil || was.Required == nil || len(now.Required.NodeSelectorTerms) != len(was.Required.NodeSelectorTerms) {
		return equality.Semantic.DeepEqual(now, was)
	}
	renamed := was.DeepCopy()
	for i, term := range now.Required.NodeSelectorTerms {
		old := renamed.Required.NodeSelectorTerms[i].MatchExpressions
		for j := range min(len(term.MatchExpressions), len(old)) {
			if key := term.MatchExpressions[j].Key; oldVolumeLabels[old[j].Key] == key {
				old[j].Key = key
			}
		}
	}
	return equality.Semantic.DeepEqual(now, renamed)
}

// validatePersistentSource checks that there is one source, and that one. Upstream's order and names.
func validatePersistentSource(v *corev1.PersistentVolume, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := 0
	for _, s := range slices.Concat(firstPersistent(v), foreignPersistent(v), lastPersistent(v, spec)) {
		switch {
		case !s.set:
		case count > 0 && s.name != "flexVolume": // which upstream forgets
			errs = append(errs, field.Forbidden(spec.Child(s.name), "may not specify more than 1 volume type"))
		default:
			count++
			errs = append(errs, s.check(spec.Child(s.name))...)
		}
	}
	if count == 0 {
		errs = append(errs, field.Required(spec, "must specify a volume type"))
	}
	return errs
}

type persistentSource struct {
	set   bool
	name  string
	check func(*field.Path) field.ErrorList
}

func firstPersistent(v *corev1.PersistentVolume) []persistentSource {
	s := &v.Spec
	return []persistentSource{
		{s.HostPath != nil, "hostPath", func(p *field.Path) field.ErrorList { return volumesource.HostPath(s.HostPath, p) }},
		{s.GCEPersistentDisk != nil, "gcePersistentDisk", func(*field.Path) field.ErrorList {
			return volumesource.GCE(s.GCEPersistentDisk, field.NewPath("spec", "persistentDisk")) // upstream's name
		}},
		{s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) field.ErrorList { return volumesource.AWS(s.AWSElasticBlockStore, p) }},
		{s.Glusterfs != nil, "glusterfs", func(p *field.Path) field.ErrorList { return validateGlusterfs(s.Glusterfs, p) }},
		{s.Flocker != nil, "flocker", func(p *field.Path) field.ErrorList { return volumesource.Flocker(s.Flocker, p) }},
		{s.NFS != nil, "nfs", func(p *field.Path) field.ErrorList { return volumesource.NFS(s.NFS, p) }},
	}
}

func lastPersistent(v *corev1.PersistentVolume, spec *field.Path) []persistentSource {
	s := &v.Spec
	return []persistentSource{
		{s.Local != nil, "local", func(p *field.Path) field.ErrorList {
			errs := volumesource.Required(p, "path", s.Local.Path)
			errs = append(errs, volumesource.Within(s.Local.Path, p.Child("path"))...)
			if s.NodeAffinity == nil {
				errs = append(errs, field.Required(spec.Child("nodeAffinity"), "Local volume requires node affinity"))
			}
			return errs
		}},
		{s.StorageOS != nil, "storageos", func(p *field.Path) field.ErrorList {
			errs := volumesource.StorageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, p)
			if ref := s.StorageOS.SecretRef; ref != nil {
				errs = append(errs, volumesource.Required(p.Child("secretRef"), "name", ref.Name, "namespace", ref.Namespace)...)
			}
			return errs
		}},
		{s.CSI != nil, "csi", func(p *field.Path) field.ErrorList {
			errs := volumesource.CSIDriver(s.CSI.Driver, p.Child("driver"))
			errs = append(errs, volumesource.Required(p, "volumeHandle", s.CSI.VolumeHandle)...)
			for _, ref := range []struct {
				ref  *corev1.SecretReference
				name string
			}{
				{s.CSI.ControllerPublishSecretRef, "controllerPublishSecretRef"}, {s.CSI.ControllerExpandSecretRef, "controllerExpandSecretRef"},
				{s.CSI.NodePublishSecretRef, "nodePublishSecretRef"}, {s.CSI.NodeExpandSecretRef, "nodeExpandSecretRef"},
			} {
				errs = append(errs, secretReference(ref.ref, p.Child(ref.name))...)
			}
			return errs
		}},
	}
}

func secretReference(ref *corev1.SecretReference, at *field.Path) field.ErrorList {
	if ref == nil {
		return nil
	}
	errs := volumesource.Required(at, "name", ref.Name)
	if ref.Name != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(ref.Name), at.Child("name"), ref.Name)...)
	}
	errs = append(errs, volumesource.Required(at, "namespace", ref.Namespace)...)
	if ref.Namespace != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(ref.Namespace), at.Child("namespace"), ref.Namespace)...)
	}
	return errs
}

// foreignPersistent are the drivers of old.
func foreignPersistent(v *corev1.PersistentVolume) []persistentSource {
	s := &v.Spec
	return []persistentSource{
		{s.RBD != nil, "rbd", func(p *field.Path) field.ErrorList {
			return append(volumesource.Monitors(s.RBD.CephMonitors, p), volumesource.Required(p, "image", s.RBD.RBDImage)...)
		}},
		{s.Quobyte != nil, "quobyte", func(p *field.Path) field.ErrorList { return volumesource.Quobyte(s.Quobyte, p) }},
		{s.CephFS != nil, "cephFS", func(*field.Path) field.ErrorList {
			return volumesource.Monitors(s.CephFS.Monitors, field.NewPath("spec", "cephfs")) // the one name is upstream's, too
		}},
		{s.ISCSI != nil, "iscsi", func(p *field.Path) field.ErrorList { return validateISCSI(s.ISCSI, v.Name, p) }},
		{s.Cinder != nil, "cinder", func(p *field.Path) field.ErrorList {
			errs := volumesource.Required(p, "volumeID", s.Cinder.VolumeID)
			if ref := s.Cinder.SecretRef; ref != nil {
				errs = append(errs, volumesource.Required(p.Child("secretRef"), "name", ref.Name, "namespace", ref.Namespace)...)
			}
			return errs
		}},
		{s.FC != nil, "fc", func(p *field.Path) field.ErrorList { return volumesource.FC(s.FC, p) }},
		{s.FlexVolume != nil, "flexVolume", func(p *field.Path) field.ErrorList {
			return volumesource.Flex(s.FlexVolume.Driver, s.FlexVolume.Options, p)
		}},
		{s.AzureFile != nil, "azureFile", func(p *field.Path) field.ErrorList {
			errs := volumesource.Required(p, "secretName", s.AzureFile.SecretName, "shareName", s.AzureFile.ShareName)
			if ns := s.AzureFile.SecretNamespace; ns != nil {
				errs = append(errs, volumesource.Required(p, "secretNamespace", *ns)...)
			}
			return errs
		}},
		{s.VsphereVolume != nil, "vsphereVolume", func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "volumePath", s.VsphereVolume.VolumePath)
		}},
		{s.PhotonPersistentDisk != nil, "photonPersistentDisk", func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "pdID", s.PhotonPersistentDisk.PdID)
		}},
		{s.PortworxVolume != nil, "portworxVolume", func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "volumeID", s.PortworxVolume.VolumeID)
		}},
		{s.AzureDisk != nil, "azureDisk", func(p *field.Path) field.ErrorList { return volumesource.AzureDisk(s.AzureDisk, p) }},
		{s.ScaleIO != nil, "scaleIO", func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "gateway", s.ScaleIO.Gateway, "system", s.ScaleIO.System, "volumeName", s.ScaleIO.VolumeName)
		}},
	}
}

func validateGlusterfs(v *corev1.GlusterfsPersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := volumesource.Required(at, "endpoints", v.EndpointsName, "path", v.Path)
	if ns := v.EndpointsNamespace; ns != nil {
		if *ns == "" {
			return append(errs, field.Invalid(at.Child("endpointsNamespace"), *ns, "if the endpointnamespace is set, it must be a valid namespace name"))
		}
		errs = append(errs, check.Strings(apivalidation.ValidateNamespaceName(*ns, false), at.Child("endpointsNamespace"), *ns)...)
	}
	return errs
}

func validateISCSI(v *corev1.ISCSIPersistentVolumeSource, volume string, at *field.Path) field.ErrorList {
	i := volumesource.ISCSI{TargetPortal: v.TargetPortal, IQN: v.IQN, Lun: v.Lun, InitiatorName: v.InitiatorName, Terse: true}
	errs := i.Validate(at)
	if i.TooLongFor(volume) {
		errs = append(errs, field.Invalid(at.Child("targetportal"), v.TargetPortal, volumesource.ISCSITooLong))
	}
	if v.SecretRef == nil {
		if v.DiscoveryCHAPAuth || v.SessionCHAPAuth {
			errs = append(errs, field.Required(at.Child("secretRef"), ""))
		}
		return errs
	}
	return append(errs, volumesource.Required(at.Child("secretRef"), "name", v.SecretRef.Name)...)
}
