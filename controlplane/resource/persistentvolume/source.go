package persistentvolume

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// validateSource checks that there is one source, and that one. Upstream's order and names.
func validateSource(s *corev1.PersistentVolumeSpec, name string, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := 0
	for _, one := range slices.Concat(firstSources(s, spec), foreignSources(s, name, spec), lastSources(s, spec)) {
		switch {
		case !one.set:
		case count > 0 && one.name != "flexVolume": // which upstream forgets
			errs = append(errs, field.Forbidden(spec.Child(one.name), "may not specify more than 1 volume type"))
		default:
			count++
			errs = append(errs, one.check(spec.Child(one.name))...)
		}
	}
	if count == 0 {
		errs = append(errs, field.Required(spec, "must specify a volume type"))
	}
	return errs
}

type source struct {
	set   bool
	name  string
	check func(*field.Path) field.ErrorList
}

func firstSources(s *corev1.PersistentVolumeSpec, spec *field.Path) []source {
	return []source{
		{s.HostPath != nil, "hostPath", func(p *field.Path) field.ErrorList { return volumesource.HostPath(s.HostPath, p) }},
		{s.GCEPersistentDisk != nil, "gcePersistentDisk", func(*field.Path) field.ErrorList {
			return volumesource.GCE(s.GCEPersistentDisk, spec.Child("persistentDisk")) // upstream's name
		}},
		{s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) field.ErrorList { return volumesource.AWS(s.AWSElasticBlockStore, p) }},
		{s.Glusterfs != nil, "glusterfs", func(p *field.Path) field.ErrorList { return validateGlusterfs(s.Glusterfs, p) }},
		{s.Flocker != nil, "flocker", func(p *field.Path) field.ErrorList { return volumesource.Flocker(s.Flocker, p) }},
		{s.NFS != nil, "nfs", func(p *field.Path) field.ErrorList { return volumesource.NFS(s.NFS, p) }},
	}
}

func lastSources(s *corev1.PersistentVolumeSpec, spec *field.Path) []source {
	return []source{
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

// foreignSources are the drivers of old.
func foreignSources(s *corev1.PersistentVolumeSpec, volume string, spec *field.Path) []source {
	return []source{
		{s.RBD != nil, "rbd", func(p *field.Path) field.ErrorList {
			return append(volumesource.Monitors(s.RBD.CephMonitors, p), volumesource.Required(p, "image", s.RBD.RBDImage)...)
		}},
		{s.Quobyte != nil, "quobyte", func(p *field.Path) field.ErrorList { return volumesource.Quobyte(s.Quobyte, p) }},
		{s.CephFS != nil, "cephFS", func(*field.Path) field.ErrorList {
			return volumesource.Monitors(s.CephFS.Monitors, spec.Child("cephfs")) // the one name is upstream's, too
		}},
		{s.ISCSI != nil, "iscsi", func(p *field.Path) field.ErrorList { return validateISCSI(s.ISCSI, volume, p) }},
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
