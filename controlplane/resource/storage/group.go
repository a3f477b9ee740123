package storage

import (
	"maps"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

const (
	maxParameters     = 512
	maxParameterBytes = 256 * 1024
	maxDriverName     = 63
)

// Group is storage.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        storagev1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{storagev1.AddToScheme},
		Kinds: []resource.Kind{
			csiDriver(), csiNode(), csiStorageCapacity(), storageClass(), volumeAttachment(), volumeAttributesClass(),
		},
	}
}

func set[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func validateProvisioner(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	name = strings.ToLower(name)
	return check.Strings(validation.IsQualifiedName(name), path, name)
}

func validateParameters(params map[string]string, path *field.Path) field.ErrorList {
	if len(params) > maxParameters {
		return field.ErrorList{field.TooLong(path, "", maxParameters)}
	}
	var errs field.ErrorList
	size := 0
	for _, k := range slices.Sorted(maps.Keys(params)) {
		if k == "" {
			errs = append(errs, field.Invalid(path, k, "field can not be empty."))
		}
		size += len(k) + len(params[k])
	}
	if size > maxParameterBytes {
		errs = append(errs, field.TooLong(path, "", maxParameterBytes))
	}
	return errs
}

// forbidden refuses any change of an attributes class's field, immutable one of a field of other kinds: with other words.
func forbidden(same bool, name string) field.ErrorList {
	if same {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath(name), "updates to "+name+" are forbidden.")}
}

func immutable(same bool, path *field.Path) field.ErrorList {
	if same {
		return nil
	}
	return field.ErrorList{field.Invalid(path, nil, apivalidation.FieldImmutableErrorMsg)}
}

// oldLabels warns of labels of nodes that have other names by now.
func oldLabels(s *metav1.LabelSelector, path *field.Path) []string {
	if s == nil {
		return nil
	}
	var out []string
	for i, e := range s.MatchExpressions {
		if msg := podspec.OldNodeLabel(e.Key); msg != "" {
			out = append(out, path.Child("matchExpressions").Index(i).Child("key").String()+": "+e.Key+" is "+msg)
		}
	}
	for _, label := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if msg := podspec.OldNodeLabel(label); msg != "" {
			out = append(out, path.Child("matchLabels", label).String()+": "+msg)
		}
	}
	return out
}
