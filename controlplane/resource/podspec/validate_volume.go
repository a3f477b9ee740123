package podspec

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/claim"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

const (
	fileMode = "must be a number between 0 and 0777 (octal), both inclusive"
	oneType  = "may not specify more than 1 volume type"
)

// validateVolumes returns the volumes that containers may mount: those without an error.
func validateVolumes(volumes []corev1.Volume, meta *metav1.ObjectMeta, path *field.Path) (map[string]corev1.VolumeSource, field.ErrorList) {
	var errs field.ErrorList
	made := sets.New[string]() // claims that will be made for ephemeral volumes
	if meta != nil && meta.Name != "" {
		for _, v := range volumes {
			if v.Ephemeral != nil {
				made.Insert(meta.Name + "-" + v.Name)
			}
		}
	}
	good := map[string]corev1.VolumeSource{}
	for i := range volumes {
		v, at := &volumes[i], path.Index(i)
		found := validateVolumeSource(v, meta, at)
		if v.Name == "" {
			found = append(found, field.Required(at.Child("name"), ""))
		} else {
			found = append(found, check.Strings(validation.IsDNS1123Label(v.Name), at.Child("name"), v.Name)...)
		}
		if _, twice := good[v.Name]; twice {
			found = append(found, field.Duplicate(at.Child("name"), v.Name))
		}
		if len(found) == 0 {
			good[v.Name] = v.VolumeSource
		}
		errs = append(errs, found...)
		if c := v.PersistentVolumeClaim; c != nil && made.Has(c.ClaimName) {
			errs = append(errs, field.Invalid(at.Child("persistentVolumeClaim", "claimName"), c.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume"))
		}
	}
	return good, errs
}

// sourceCheck is one member of the union of volume sources. Upstream names a few of them differently where a second
// type is refused (twice) and where the type itself is checked (name).
type sourceCheck struct {
	set         bool
	name, twice string
	check       func(*field.Path) field.ErrorList
}

func validateVolumeSource(v *corev1.Volume, meta *metav1.ObjectMeta, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	all := append(localSources(v, meta, path), foreignSources(v)...)
	all = slices.DeleteFunc(all, func(s sourceCheck) bool { return !s.set })
	if len(all) > 1 {
		slices.SortFunc(all, func(a, b sourceCheck) int {
			return slices.Index(sourceOrder, a.name) - slices.Index(sourceOrder, b.name)
		})
	}
	for i, s := range all {
		if i == 0 {
			errs = append(errs, s.check(path.Child(s.name))...)
			continue
		}
		if s.twice == "" {
			s.twice = s.name
		}
		errs = append(errs, field.Forbidden(path.Child(s.twice), oneType))
	}
	if v.ISCSI != nil && iscsiOf(v.ISCSI).TooLongFor(v.Name) {
		errs = append(errs, field.Invalid(path.Child("name"), v.Name, volumesource.ISCSITooLong))
	}
	if len(all) == 0 {
		errs = append(errs, field.Required(path, "must specify a volume type"))
	}
	return errs
}

// sourceOrder is in which order the types are looked for: the first is checked, and those after it are too many.
var sourceOrder = []string{"emptyDir", "hostPath", "gitRepo", "persistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi",
	"glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc", "flexVolume",
	"configMap", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk", "storageos", "projected",
	"scaleIO", "csi", "ephemeral", "image"}

// localSources are the types that a node provides by itself, from the API, or through a claim.
func localSources(v *corev1.Volume, meta *metav1.ObjectMeta, volume *field.Path) []sourceCheck {
	return []sourceCheck{
		{set: v.EmptyDir != nil, name: "emptyDir", check: func(p *field.Path) field.ErrorList {
			if limit := v.EmptyDir.SizeLimit; limit != nil && limit.Sign() < 0 {
				return field.ErrorList{field.Forbidden(p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")}
			}
			return nil
		}},
		{set: v.HostPath != nil, name: "hostPath", check: func(p *field.Path) field.ErrorList { return volumesource.HostPath(v.HostPath, p) }},
		{set: v.Secret != nil, name: "secret", check: func(p *field.Path) field.ErrorList {
			errs := volumesource.Required(p, "secretName", v.Secret.SecretName)
			return append(errs, validateProjectedKeys(v.Secret.DefaultMode, v.Secret.Items, p)...)
		}},
		{set: v.PersistentVolumeClaim != nil, name: "persistentVolumeClaim", check: func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "claimName", v.PersistentVolumeClaim.ClaimName)
		}},
		{set: v.DownwardAPI != nil, name: "downwardAPI", twice: "downwarAPI", check: func(p *field.Path) field.ErrorList {
			errs := validateMode(v.DownwardAPI.DefaultMode, p.Child("defaultMode"))
			for i := range v.DownwardAPI.Items {
				errs = append(errs, validateDownwardFile(&v.DownwardAPI.Items[i], p)...)
			}
			return errs
		}},
		{set: v.ConfigMap != nil, name: "configMap", check: func(p *field.Path) field.ErrorList {
			errs := volumesource.Required(p, "name", v.ConfigMap.Name)
			return append(errs, validateProjectedKeys(v.ConfigMap.DefaultMode, v.ConfigMap.Items, p)...)
		}},
		{set: v.Projected != nil, name: "projected", check: func(p *field.Path) field.ErrorList { return validateProjected(v.Projected, p) }},
		{set: v.CSI != nil, name: "csi", check: func(p *field.Path) field.ErrorList { return validateCSI(v.CSI, p) }},
		{set: v.Ephemeral != nil, name: "ephemeral", check: func(p *field.Path) field.ErrorList { return validateEphemeral(v, meta, volume, p) }},
		{set: v.Image != nil, name: "image", check: func(p *field.Path) field.ErrorList { return validateImageVolume(v.Image, p) }},
	}
}

func validateEphemeral(v *corev1.Volume, meta *metav1.ObjectMeta, volume, path *field.Path) field.ErrorList {
	at := path.Child("volumeClaimTemplate")
	var errs field.ErrorList
	if t := v.Ephemeral.VolumeClaimTemplate; t == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, claim.ValidateTemplate(t, at)...)
	}
	if meta == nil || meta.Name == "" || v.Name == "" {
		return errs
	}
	name := meta.Name + "-" + v.Name
	for _, msg := range apivalidation.NameIsDNSSubdomain(name, false) {
		errs = append(errs, field.Invalid(volume.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", name, msg)))
	}
	return errs
}

func validateImageVolume(v *corev1.ImageVolumeSource, path *field.Path) field.ErrorList {
	errs := volumesource.Required(path, "reference", v.Reference)
	return append(errs, validatePullPolicy(v.PullPolicy, path.Child("pullPolicy"))...)
}

func validateCSI(v *corev1.CSIVolumeSource, path *field.Path) field.ErrorList {
	errs := volumesource.CSIDriver(v.Driver, path.Child("driver"))
	if ref := v.NodePublishSecretRef; ref != nil {
		if ref.Name == "" {
			errs = append(errs, field.Required(path.Child("nodePublishSecretRef", "name"), ""))
		} else {
			errs = append(errs, volumesource.Name(ref.Name, path.Child("name"))...)
		}
	}
	return errs
}

func validateProjectedKeys(mode *int32, items []corev1.KeyToPath, path *field.Path) field.ErrorList {
	errs := validateMode(mode, path.Child("defaultMode"))
	for i := range items {
		errs = append(errs, validateKeyToPath(&items[i], path.Child("items").Index(i))...)
	}
	return errs
}

func validateKeyToPath(k *corev1.KeyToPath, path *field.Path) field.ErrorList {
	errs := volumesource.Required(path, "key", k.Key, "path", k.Path)
	errs = append(errs, volumesource.File(k.Path, path.Child("path"))...)
	return append(errs, validateMode(k.Mode, path.Child("mode"))...)
}

func validateMode(mode *int32, path *field.Path) field.ErrorList {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		return field.ErrorList{field.Invalid(path, *mode, fileMode)}
	}
	return nil
}

func validateDownwardFile(f *corev1.DownwardAPIVolumeFile, path *field.Path) field.ErrorList {
	errs := volumesource.Required(path, "path", f.Path)
	errs = append(errs, volumesource.File(f.Path, path.Child("path"))...)
	switch {
	case f.FieldRef != nil:
		errs = append(errs, validateFieldRef(f.FieldRef, volumeFieldPaths, path.Child("fieldRef"))...)
		if f.ResourceFieldRef != nil {
			errs = append(errs, field.Invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		errs = append(errs, validateResourceRef(f.ResourceFieldRef, path.Child("resourceFieldRef"), true)...)
	default:
		errs = append(errs, field.Required(path, "one of fieldRef and resourceFieldRef is required"))
	}
	return append(errs, validateMode(f.Mode, path.Child("mode"))...)
}

// foreignSources are the drivers of old.
func foreignSources(v *corev1.Volume) []sourceCheck {
	return []sourceCheck{
		{set: v.GitRepo != nil, name: "gitRepo", check: func(p *field.Path) field.ErrorList {
			return append(volumesource.Required(p, "repository", v.GitRepo.Repository), volumesource.Below(v.GitRepo.Directory, p.Child("directory"))...)
		}},
		{set: v.GCEPersistentDisk != nil, name: "persistentDisk", twice: "gcePersistentDisk", check: func(p *field.Path) field.ErrorList {
			return volumesource.GCE(v.GCEPersistentDisk, p)
		}},
		{set: v.AWSElasticBlockStore != nil, name: "awsElasticBlockStore", check: func(p *field.Path) field.ErrorList {
			return volumesource.AWS(v.AWSElasticBlockStore, p)
		}},
		{set: v.NFS != nil, name: "nfs", check: func(p *field.Path) field.ErrorList { return volumesource.NFS(v.NFS, p) }},
		{set: v.ISCSI != nil, name: "iscsi", check: func(p *field.Path) field.ErrorList { return validateISCSI(v.ISCSI, p) }},
		{set: v.Glusterfs != nil, name: "glusterfs", check: func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "endpoints", v.Glusterfs.EndpointsName, "path", v.Glusterfs.Path)
		}},
		{set: v.Flocker != nil, name: "flocker", check: func(p *field.Path) field.ErrorList { return volumesource.Flocker(v.Flocker, p) }},
		{set: v.RBD != nil, name: "rbd", check: func(p *field.Path) field.ErrorList {
			return append(volumesource.Monitors(v.RBD.CephMonitors, p), volumesource.Required(p, "image", v.RBD.RBDImage)...)
		}},
		{set: v.Cinder != nil, name: "cinder", check: func(p *field.Path) field.ErrorList {
			return append(volumesource.Required(p, "volumeID", v.Cinder.VolumeID), secretName(v.Cinder.SecretRef, p)...)
		}},
		{set: v.CephFS != nil, name: "cephfs", twice: "cephFS", check: func(p *field.Path) field.ErrorList {
			return volumesource.Monitors(v.CephFS.Monitors, p)
		}},
		{set: v.Quobyte != nil, name: "quobyte", check: func(p *field.Path) field.ErrorList { return volumesource.Quobyte(v.Quobyte, p) }},
		{set: v.FC != nil, name: "fc", check: func(p *field.Path) field.ErrorList { return volumesource.FC(v.FC, p) }},
		{set: v.FlexVolume != nil, name: "flexVolume", check: func(p *field.Path) field.ErrorList {
			return volumesource.Flex(v.FlexVolume.Driver, v.FlexVolume.Options, p)
		}},
		{set: v.AzureFile != nil, name: "azureFile", check: func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "secretName", v.AzureFile.SecretName, "shareName", v.AzureFile.ShareName)
		}},
		{set: v.VsphereVolume != nil, name: "vsphereVolume", check: func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "volumePath", v.VsphereVolume.VolumePath)
		}},
		{set: v.PhotonPersistentDisk != nil, name: "photonPersistentDisk", check: func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "pdID", v.PhotonPersistentDisk.PdID)
		}},
		{set: v.PortworxVolume != nil, name: "portworxVolume", check: func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "volumeID", v.PortworxVolume.VolumeID)
		}},
		{set: v.AzureDisk != nil, name: "azureDisk", check: func(p *field.Path) field.ErrorList { return volumesource.AzureDisk(v.AzureDisk, p) }},
		{set: v.StorageOS != nil, name: "storageos", check: func(p *field.Path) field.ErrorList {
			return append(volumesource.StorageOS(v.StorageOS.VolumeName, v.StorageOS.VolumeNamespace, p), secretName(v.StorageOS.SecretRef, p)...)
		}},
		{set: v.ScaleIO != nil, name: "scaleIO", check: func(p *field.Path) field.ErrorList {
			return volumesource.Required(p, "gateway", v.ScaleIO.Gateway, "system", v.ScaleIO.System, "volumeName", v.ScaleIO.VolumeName)
		}},
	}
}

func secretName(ref *corev1.LocalObjectReference, path *field.Path) field.ErrorList {
	if ref == nil {
		return nil
	}
	return volumesource.Required(path.Child("secretRef"), "name", ref.Name)
}

func iscsiOf(v *corev1.ISCSIVolumeSource) volumesource.ISCSI {
	return volumesource.ISCSI{TargetPortal: v.TargetPortal, IQN: v.IQN, Lun: v.Lun, InitiatorName: v.InitiatorName}
}

func validateISCSI(v *corev1.ISCSIVolumeSource, path *field.Path) field.ErrorList {
	errs := iscsiOf(v).Validate(path)
	if (v.DiscoveryCHAPAuth || v.SessionCHAPAuth) && v.SecretRef == nil {
		errs = append(errs, field.Required(path.Child("secretRef"), ""))
	}
	return errs
}
