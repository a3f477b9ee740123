package volumesource

import (
	"net"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

// Required reports each empty value under its name; the arguments are pairs of name and value.
func Required(at *field.Path, namesAndValues ...string) field.ErrorList {
	var errs field.ErrorList
	for pair := range slices.Chunk(namesAndValues, 2) {
		if pair[1] == "" {
			errs = append(errs, field.Required(at.Child(pair[0]), ""))
		}
	}
	return errs
}

// Within refuses a path with ".." in it.
func Within(target string, at *field.Path) field.ErrorList {
	if slices.Contains(strings.Split(target, "/"), "..") {
		return field.ErrorList{field.Invalid(at, target, "must not contain '..'")}
	}
	return nil
}

// Below refuses a path that is absolute or has ".." in it.
func Below(target string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if path.IsAbs(target) {
		errs = append(errs, field.Invalid(at, target, "must be a relative path"))
	}
	return append(errs, Within(target, at)...)
}

// File refuses what Below refuses and names that begin with "..", which the atomic writer keeps for itself.
func File(target string, at *field.Path) field.ErrorList {
	errs := Below(target, at)
	if strings.HasPrefix(target, "..") && !strings.HasPrefix(target, "../") {
		errs = append(errs, field.Invalid(at, target, "must not start with '..'"))
	}
	return errs
}

// HostPath checks a path of the node.
func HostPath(v *corev1.HostPathVolumeSource, at *field.Path) field.ErrorList {
	if v.Path == "" {
		return Required(at, "path", v.Path)
	}
	errs := Within(v.Path, at.Child("path"))
	if v.Type != nil {
		errs = append(errs, check.OneOf(*v.Type, at.Child("type"), corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev,
			corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)...)
	}
	return errs
}

// NFS checks an export.
func NFS(v *corev1.NFSVolumeSource, at *field.Path) field.ErrorList {
	errs := Required(at, "server", v.Server, "path", v.Path)
	if !path.IsAbs(v.Path) {
		errs = append(errs, field.Invalid(at.Child("path"), v.Path, "must be an absolute path"))
	}
	return errs
}

// GCE checks a disk of Google's cloud.
func GCE(v *corev1.GCEPersistentDiskVolumeSource, at *field.Path) field.ErrorList {
	return append(Required(at, "pdName", v.PDName), partition(v.Partition, at)...)
}

// AWS checks a disk of Amazon's cloud.
func AWS(v *corev1.AWSElasticBlockStoreVolumeSource, at *field.Path) field.ErrorList {
	return append(Required(at, "volumeID", v.VolumeID), partition(v.Partition, at)...)
}

func partition(n int32, at *field.Path) field.ErrorList {
	if n < 0 || n > 255 {
		return field.ErrorList{field.Invalid(at.Child("partition"), n, validation.InclusiveRangeError(1, 255))}
	}
	return nil
}

// FC checks a fibre channel LUN.
func FC(v *corev1.FCVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	wwns := at.Child("targetWWNs")
	if len(v.TargetWWNs) == 0 && len(v.WWIDs) == 0 {
		errs = append(errs, field.Required(wwns, "must specify either targetWWNs or wwids, but not both"))
	}
	if len(v.TargetWWNs) > 0 && len(v.WWIDs) > 0 {
		errs = append(errs, field.Invalid(wwns, v.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously"))
	}
	switch {
	case len(v.TargetWWNs) == 0:
	case v.Lun == nil:
		errs = append(errs, field.Required(at.Child("lun"), "lun is required if targetWWNs is specified"))
	case *v.Lun < 0 || *v.Lun > 255:
		errs = append(errs, field.Invalid(at.Child("lun"), v.Lun, validation.InclusiveRangeError(0, 255)))
	}
	return errs
}

// Quobyte checks a volume of a Quobyte registry.
func Quobyte(v *corev1.QuobyteVolumeSource, at *field.Path) field.ErrorList {
	const pair = "must be a host:port pair or multiple pairs separated by commas"
	var errs field.ErrorList
	switch {
	case v.Registry == "":
		errs = append(errs, field.Required(at.Child("registry"), pair))
	case len(v.Tenant) >= 65:
		errs = append(errs, field.Required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for hostPort := range strings.SplitSeq(v.Registry, ",") {
			if _, _, err := net.SplitHostPort(hostPort); err != nil {
				errs = append(errs, field.Invalid(at.Child("registry"), v.Registry, pair))
			}
		}
	}
	return append(errs, Required(at, "volume", v.Volume)...)
}

// Flocker checks a data set.
func Flocker(v *corev1.FlockerVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case v.DatasetName == "" && v.DatasetUUID == "":
		errs = append(errs, field.Required(at, "one of datasetName and datasetUUID is required"))
	case v.DatasetName != "" && v.DatasetUUID != "":
		errs = append(errs, field.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
	}
	if strings.Contains(v.DatasetName, "/") {
		errs = append(errs, field.Invalid(at.Child("datasetName"), v.DatasetName, "must not contain '/'"))
	}
	return errs
}

// AzureDisk checks a disk of Microsoft's cloud.
func AzureDisk(v *corev1.AzureDiskVolumeSource, at *field.Path) field.ErrorList {
	errs := Required(at, "diskName", v.DiskName, "diskURI", v.DataDiskURI)
	if v.CachingMode != nil {
		errs = append(errs, check.OneOf(*v.CachingMode, at.Child("cachingMode"),
			corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)...)
	}
	if v.Kind == nil {
		return errs
	}
	errs = append(errs, check.OneOf(*v.Kind, at.Child("kind"), corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)...)
	prefix, example := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *v.Kind == corev1.AzureManagedDisk {
		prefix, example = "/subscriptions/", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(v.DataDiskURI, prefix) {
		errs = append(errs, field.NotSupported(at.Child("diskURI"), v.DataDiskURI, []string{example}))
	}
	return errs
}

// DefaultAzureDisk sets the defaults of the one source that has more than a name to default.
func DefaultAzureDisk(d *corev1.AzureDiskVolumeSource) {
	if d.CachingMode == nil {
		mode := corev1.AzureDataDiskCachingReadWrite
		d.CachingMode = &mode
	}
	if d.FSType == nil {
		fs := "ext4"
		d.FSType = &fs
	}
	if d.ReadOnly == nil {
		d.ReadOnly = new(bool)
	}
	if d.Kind == nil {
		kind := corev1.AzureSharedBlobDisk
		d.Kind = &kind
	}
}

// Flex checks the driver and options of a FlexVolume.
func Flex(driver string, options map[string]string, at *field.Path) field.ErrorList {
	errs := Required(at, "driver", driver)
	for key := range options {
		namespace, _, _ := strings.Cut(key, "/")
		namespace = "." + strings.ToLower(namespace)
		if strings.HasSuffix(namespace, ".kubernetes.io") || strings.HasSuffix(namespace, ".k8s.io") {
			errs = append(errs, field.Invalid(at.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

// StorageOS checks a volume's name and namespace.
func StorageOS(name, namespace string, at *field.Path) field.ErrorList {
	errs := Required(at, "volumeName", name)
	if name != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(name), at.Child("volumeName"), name)...)
	}
	if namespace != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(namespace), at.Child("volumeNamespace"), namespace)...)
	}
	return errs
}

// Monitors checks that a Ceph cluster is named.
func Monitors(monitors []string, at *field.Path) field.ErrorList {
	if len(monitors) == 0 {
		return field.ErrorList{field.Required(at.Child("monitors"), "")}
	}
	return nil
}

// CSIDriver checks a driver's name.
func CSIDriver(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if len(name) > 63 {
		errs = append(errs, field.TooLong(at, "", 63))
	}
	return append(errs, check.Strings(validation.IsDNS1123Subdomain(strings.ToLower(name)), at, name)...)
}

// iSCSI names: RFC 3720's iqn, IEEE's eui and T11's naa.
var iscsiNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa.[[:alnum:]]{32}$`),
}

// ISCSI is the common part of both iSCSI sources.
type ISCSI struct {
	TargetPortal, IQN string
	Lun               int32
	InitiatorName     *string
	// Terse: a PersistentVolume is not told how names begin, as a pod is.
	Terse bool
}

// Validate checks the portal, the names and the LUN.
func (v ISCSI) Validate(at *field.Path) field.ErrorList {
	errs := Required(at, "targetPortal", v.TargetPortal, "iqn", v.IQN)
	if v.IQN != "" {
		errs = append(errs, v.validName(v.IQN, at.Child("iqn"))...)
	}
	if v.Lun < 0 || v.Lun > 255 {
		errs = append(errs, field.Invalid(at.Child("lun"), v.Lun, validation.InclusiveRangeError(0, 255)))
	}
	if v.InitiatorName != nil {
		errs = append(errs, v.validName(*v.InitiatorName, at.Child("initiatorname"))...)
	}
	return errs
}

// TooLongFor says whether the names together do not fit where the initiator keeps them.
func (v ISCSI) TooLongFor(volume string) bool {
	return v.InitiatorName != nil && len(volume+":"+v.TargetPortal) > 64
}

// ISCSITooLong explains TooLongFor.
const ISCSITooLong = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."

func (v ISCSI) validName(name string, at *field.Path) field.ErrorList {
	for prefix, form := range iscsiNames {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if !form.MatchString(name) {
			return field.ErrorList{field.Invalid(at, name, "must be valid format")}
		}
		return nil
	}
	message := "must be valid format starting with iqn, eui, or naa"
	if v.Terse {
		message = "must be valid format"
	}
	return field.ErrorList{field.Invalid(at, name, message)}
}

// Name checks the name of an object that a source refers to.
func Name(name string, at *field.Path) field.ErrorList {
	return check.Strings(apivalidation.NameIsDNSSubdomain(name, false), at, name)
}
