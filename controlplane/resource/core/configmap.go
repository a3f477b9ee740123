package core

import (
	"context"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/column"
)

const immutableSet = "field is immutable when `immutable` is set"

func configMapKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ConfigMap", Plural: "configmaps", ShortNames: []string{"cm"}, Namespaced: true,
		New:     func() runtime.Object { return &corev1.ConfigMap{} },
		NewList: func() runtime.Object { return &corev1.ConfigMapList{} },
		Columns: []resource.Column{
			resource.Col("Data", "string", column.Doc(corev1.ConfigMap{}, "data"), 0, func(c *corev1.ConfigMap) any {
				return int64(len(c.Data) + len(c.BinaryData))
			}),
		},
	}, resource.Rules[*corev1.ConfigMap]{
		Default:  defaultConfigMap,
		Validate: func(_ context.Context, c *corev1.ConfigMap) field.ErrorList { return validateConfigMap(c) },
		ValidateUpdate: func(_ context.Context, c, old *corev1.ConfigMap) field.ErrorList {
			return validateConfigMapUpdate(c, old)
		},
	})
}

// defaultConfigMap leaves an empty map, not nil: clients of old read .data without a check.
func defaultConfigMap(c *corev1.ConfigMap) {
	if c.Data == nil {
		c.Data = map[string]string{}
	}
}

func validateConfigMap(c *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	total := 0
	for key, value := range c.Data {
		path := field.NewPath("data").Key(key)
		errs = append(errs, configKey(key, path)...)
		if _, twice := c.BinaryData[key]; twice {
			errs = append(errs, field.Invalid(path, key, "duplicate of key present in binaryData"))
		}
		total += len(value)
	}
	for key, value := range c.BinaryData {
		errs = append(errs, configKey(key, field.NewPath("binaryData").Key(key))...)
		total += len(value)
	}
	if total > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

func validateConfigMapUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	if isTrue(old.Immutable) {
		errs = append(errs, changedImmutable(isTrue(c.Immutable), "immutable")...)
		errs = append(errs, changedImmutable(reflect.DeepEqual(c.Data, old.Data), "data")...)
		errs = append(errs, changedImmutable(reflect.DeepEqual(c.BinaryData, old.BinaryData), "binaryData")...)
	}
	return append(errs, validateConfigMap(c)...)
}

// changedImmutable refuses a change to a ConfigMap or Secret that was declared immutable.
func changedImmutable(same bool, name string) field.ErrorList {
	if same {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath(name), immutableSet)}
}

func configKey(key string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(path, key, msg))
	}
	return errs
}

func isTrue(b *bool) bool { return b != nil && *b }
