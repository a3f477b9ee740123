package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

func isTrue(b *bool) bool { return b != nil && *b }

func joined(list []string) string { return strings.Join(list, " ") }

// validateSearch: "." alone is the root; names may have underscores, as in SRV records.
func validateSearch(search string, path *field.Path) field.ErrorList {
	if search == "." {
		return nil
	}
	search = strings.TrimSuffix(search, ".")
	return check.Strings(validation.IsDNS1123SubdomainWithUnderscore(search), path, search)
}

// validateHostPorts: in the host's network a port is the host's. A template may leave hostPort to be defaulted.
func validateHostPorts(spec *corev1.PodSpec, isPod bool, path *field.Path) field.ErrorList {
	if !spec.HostNetwork {
		return nil
	}
	var errs field.ErrorList
	for i, c := range spec.Containers {
		for j, p := range c.Ports {
			if (isPod || p.HostPort != 0) && p.HostPort != p.ContainerPort {
				errs = append(errs, field.Invalid(path.Index(i).Child("ports").Index(j).Child("hostPort"), p.HostPort,
					"must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
	return errs
}

func validateSharing(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	if isTrue(spec.ShareProcessNamespace) && spec.HostPID {
		return field.ErrorList{field.Invalid(path.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")}
	}
	return nil
}

// validateUserNamespace: a pod with users of its own cannot be given the host's namespaces or devices.
func validateUserNamespace(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	if spec.HostUsers == nil || *spec.HostUsers {
		return nil
	}
	var errs field.ErrorList
	refuse := func(when bool, at *field.Path) {
		if when {
			errs = append(errs, field.Forbidden(at, "when `hostUsers` is false"))
		}
	}
	refuse(spec.HostNetwork, path.Child("hostNetwork"))
	refuse(spec.HostPID, path.Child("HostPID"))
	refuse(spec.HostIPC, path.Child("HostIPC"))
	for c, at := range Containers(spec, path) {
		refuse(len(c.VolumeDevices) > 0, at.Child("volumeDevices"))
	}
	return errs
}

func validateFileKeyVolumes(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	volumes := map[string]*corev1.VolumeSource{}
	for i := range spec.Volumes {
		volumes[spec.Volumes[i].Name] = &spec.Volumes[i].VolumeSource
	}
	var errs field.ErrorList
	for c, at := range Containers(spec, path) {
		for i, env := range c.Env {
			if env.ValueFrom == nil || env.ValueFrom.FileKeyRef == nil {
				continue
			}
			name := env.ValueFrom.FileKeyRef.VolumeName
			volume := at.Child("env").Index(i).Child("valueFrom", "fileKeyRef", "volumeName")
			if source, ok := volumes[name]; !ok {
				errs = append(errs, field.NotFound(volume, name))
			} else if source.EmptyDir == nil {
				errs = append(errs, field.Invalid(volume, name, "referenced volume must be of type emptyDir"))
			}
		}
	}
	return errs
}
