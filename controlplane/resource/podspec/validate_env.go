package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// What of a pod a variable and a file can show. Sorted: errors name them.
var (
	envFieldPaths = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	volumeFieldPaths = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
	resourcePaths    = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory"}
)

// knownFieldPaths are all that the downward API knows, and spec.host, by which old clients mean spec.nodeName.
var knownFieldPaths = append([]string{"metadata.annotations", "metadata.labels", "spec.host", "spec.restartPolicy",
	"spec.schedulerName", "status.phase"}, envFieldPaths...)

func validateEnv(vars []corev1.EnvVar, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range vars {
		v, at := &vars[i], path.Index(i)
		if v.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, check.Strings(validation.IsRelaxedEnvVarName(v.Name), at.Child("name"), v.Name)...)
		}
		if v.ValueFrom != nil {
			errs = append(errs, validateValueFrom(v.ValueFrom, v.Value, at.Child("valueFrom"))...)
		}
	}
	return errs
}

func validateValueFrom(from *corev1.EnvVarSource, value string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	sources := 0
	take := func(set bool, found func() field.ErrorList) {
		if set {
			sources++
			errs = append(errs, found()...)
		}
	}
	take(from.FieldRef != nil, func() field.ErrorList { return validateFieldRef(from.FieldRef, envFieldPaths, path.Child("fieldRef")) })
	take(from.ResourceFieldRef != nil, func() field.ErrorList {
		return validateResourceRef(from.ResourceFieldRef, path.Child("resourceFieldRef"), false)
	})
	take(from.ConfigMapKeyRef != nil, func() field.ErrorList {
		return validateKeyRef(from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Key, path.Child("configMapKeyRef"))
	})
	take(from.SecretKeyRef != nil, func() field.ErrorList {
		return validateKeyRef(from.SecretKeyRef.Name, from.SecretKeyRef.Key, path.Child("secretKeyRef"))
	})
	take(from.FileKeyRef != nil, func() field.ErrorList { return validateFileRef(from.FileKeyRef, path.Child("fileKeyRef")) })
	switch {
	case sources == 0:
		errs = append(errs, field.Invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case value != "":
		errs = append(errs, field.Invalid(path, "", "may not be specified when `value` is not empty"))
	case sources > 1:
		errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func validateFieldRef(ref *corev1.ObjectFieldSelector, supported []string, path *field.Path) field.ErrorList {
	if ref.APIVersion == "" {
		return field.ErrorList{field.Required(path.Child("apiVersion"), "")}
	}
	at := path.Child("fieldPath")
	if ref.FieldPath == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	name, subscript, hasSubscript := splitSubscript(ref.FieldPath)
	if err := knownFieldPath(ref, name, hasSubscript); err != nil {
		return field.ErrorList{field.Invalid(at, ref.FieldPath, fmt.Sprintf("error converting fieldPath: %v", err))}
	}
	if name == "spec.host" {
		name = "spec.nodeName"
	}
	switch {
	case hasSubscript && name == "metadata.annotations":
		subscript = strings.ToLower(subscript)
		return check.Strings(validation.IsQualifiedName(subscript), path, subscript)
	case hasSubscript && name == "metadata.labels":
		return check.Strings(validation.IsQualifiedName(subscript), path, subscript)
	case hasSubscript:
		return field.ErrorList{field.Invalid(path, name, "does not support subscript")}
	case !slices.Contains(supported, name):
		return field.ErrorList{field.NotSupported(at, name, supported)}
	}
	return nil
}

func knownFieldPath(ref *corev1.ObjectFieldSelector, name string, hasSubscript bool) error {
	switch {
	case ref.APIVersion != "v1":
		return fmt.Errorf("unsupported pod version: %s", ref.APIVersion)
	case hasSubscript && name != "metadata.annotations" && name != "metadata.labels":
		return fmt.Errorf("field label does not support subscript: %s", ref.FieldPath)
	case !slices.Contains(knownFieldPaths, name):
		return fmt.Errorf("field label not supported: %s", ref.FieldPath)
	}
	return nil
}

// splitSubscript splits metadata.labels['key'] into path and key.
func splitSubscript(path string) (name, subscript string, ok bool) {
	inner, ok := strings.CutSuffix(path, "']")
	if !ok {
		return path, "", false
	}
	name, subscript, ok = strings.Cut(inner, "['")
	if !ok || name == "" {
		return path, "", false
	}
	return name, subscript, true
}

func validateResourceRef(ref *corev1.ResourceFieldSelector, path *field.Path, inVolume bool) field.ErrorList {
	var errs field.ErrorList
	hugePages := strings.HasPrefix(ref.Resource, "limits.hugepages-") || strings.HasPrefix(ref.Resource, "requests.hugepages-")
	switch {
	case inVolume && ref.ContainerName == "":
		errs = append(errs, field.Required(path.Child("containerName"), ""))
	case ref.Resource == "":
		errs = append(errs, field.Required(path.Child("resource"), ""))
	case !hugePages && !slices.Contains(resourcePaths, ref.Resource):
		errs = append(errs, field.NotSupported(path.Child("resource"), ref.Resource, resourcePaths))
	}
	if ref.Divisor.IsZero() {
		return errs
	}
	divisor, at := ref.Divisor.String(), path.Child("divisor")
	refuse := func(resource string) {
		errs = append(errs, field.Invalid(at, ref.Resource, "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei "+
			"are supported with the "+resource+" resource"))
	}
	_, name, _ := strings.Cut(ref.Resource, ".")
	switch {
	case name == "cpu":
		if divisor != "1m" && divisor != "1" {
			errs = append(errs, field.Invalid(at, ref.Resource, "only divisor's values 1m and 1 are supported with the cpu resource"))
		}
	case isByteUnit(divisor):
	case name == "memory":
		refuse("memory")
	case name == "ephemeral-storage":
		refuse("local ephemeral storage")
	case hugePages:
		refuse("hugepages")
	}
	return errs
}

func isByteUnit(divisor string) bool {
	return slices.Contains([]string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}, divisor)
}

func validateKeyRef(name, key string, path *field.Path) field.ErrorList {
	errs := volumesource.Name(name, path.Child("name"))
	if key == "" {
		return append(errs, field.Required(path.Child("key"), ""))
	}
	return append(errs, check.Strings(validation.IsConfigMapKey(key), path.Child("key"), key)...)
}

func validateFileRef(ref *corev1.FileKeySelector, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ref.Key == "" {
		errs = append(errs, field.Required(path.Child("key"), ""))
	} else {
		errs = append(errs, check.Strings(validation.IsRelaxedEnvVarName(ref.Key), path.Child("key"), ref.Key)...)
	}
	if ref.VolumeName == "" {
		errs = append(errs, field.Required(path.Child("volumeName"), ""))
	} else {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(ref.VolumeName), path.Child("volumeName"), ref.VolumeName)...)
	}
	if ref.Path == "" {
		return append(errs, field.Required(path.Child("path"), ""))
	}
	return append(errs, volumesource.Within(ref.Path, path.Child("path"))...)
}

func validateEnvFrom(sources []corev1.EnvFromSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, s := range sources {
		at := path.Index(i)
		if s.Prefix != "" {
			errs = append(errs, check.Strings(validation.IsRelaxedEnvVarName(s.Prefix), at.Child("prefix"), s.Prefix)...)
		}
		if s.ConfigMapRef != nil {
			errs = append(errs, envSourceName(s.ConfigMapRef.Name, at.Child("configMapRef", "name"))...)
		}
		if s.SecretRef != nil {
			errs = append(errs, envSourceName(s.SecretRef.Name, at.Child("secretRef", "name"))...)
		}
		switch {
		case s.ConfigMapRef == nil && s.SecretRef == nil:
			errs = append(errs, field.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}

func envSourceName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return check.Strings(apivalidation.NameIsDNSSubdomain(name, true), path, name)
}
