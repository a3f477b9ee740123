package core

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/column"
)

func secretKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Secret", Plural: "secrets", Namespaced: true,
		New:     func() runtime.Object { return &corev1.Secret{} },
		NewList: func() runtime.Object { return &corev1.SecretList{} },
		Columns: []resource.Column{
			resource.Col("Type", "string", column.Doc(corev1.Secret{}, "type"), 0, func(s *corev1.Secret) any { return string(s.Type) }),
			resource.Col("Data", "string", column.Doc(corev1.Secret{}, "data"), 0, func(s *corev1.Secret) any { return int64(len(s.Data)) }),
		},
	}, resource.Rules[*corev1.Secret]{
		Default: defaultSecret,
		PrepareForUpdate: func(_ context.Context, s, old *corev1.Secret) {
			if s.Type == "" {
				s.Type = old.Type
			}
		},
		Validate:       func(_ context.Context, s *corev1.Secret) field.ErrorList { return validateSecret(s) },
		ValidateUpdate: func(_ context.Context, s, old *corev1.Secret) field.ErrorList { return validateSecretUpdate(s, old) },
		Warnings:       func(_ context.Context, s, _ *corev1.Secret) []string { return secretWarnings(s) },
		Fields:         func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} },
	})
}

// defaultSecret also folds stringData into data: upstream does so on decoding, so nobody ever reads stringData back.
func defaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

func validateSecret(s *corev1.Secret) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("data")
	total := 0
	for key, value := range s.Data {
		errs = append(errs, configKey(key, path.Key(key))...)
		total += len(value)
	}
	if total > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(path, "", corev1.MaxSecretSize))
	}
	return append(errs, validateSecretType(s, path)...)
}

// validateSecretType checks what each of the built-in types promises to its readers.
func validateSecretType(s *corev1.Secret, data *field.Path) field.ErrorList {
	missing := func(key string) bool { _, ok := s.Data[key]; return !ok }
	required := func(keys ...string) (errs field.ErrorList) {
		for _, key := range keys {
			errs = append(errs, field.Required(data.Key(key), ""))
		}
		return errs
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			path := field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey)
			return field.ErrorList{field.Required(path, "")}
		}
	case corev1.SecretTypeDockercfg:
		return jsonKey(s, corev1.DockerConfigKey, data)
	case corev1.SecretTypeDockerConfigJson:
		return jsonKey(s, corev1.DockerConfigJsonKey, data)
	case corev1.SecretTypeBasicAuth:
		if missing(corev1.BasicAuthUsernameKey) && missing(corev1.BasicAuthPasswordKey) {
			return required(corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			return required(corev1.SSHAuthPrivateKey)
		}
	case corev1.SecretTypeTLS:
		var errs field.ErrorList
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			if missing(key) {
				errs = append(errs, required(key)...)
			}
		}
		return errs
	}
	return nil
}

func jsonKey(s *corev1.Secret, key string, data *field.Path) field.ErrorList {
	value, ok := s.Data[key]
	if !ok {
		return field.ErrorList{field.Required(data.Key(key), "")}
	}
	if err := json.Unmarshal(value, &map[string]any{}); err != nil {
		return field.ErrorList{field.Invalid(data.Key(key), "<secret contents redacted>", err.Error())}
	}
	return nil
}

func validateSecretUpdate(s, old *corev1.Secret) field.ErrorList {
	errs := apivalidation.ValidateImmutableField(s.Type, old.Type, field.NewPath("type"))
	if isTrue(old.Immutable) {
		errs = append(errs, changedImmutable(isTrue(s.Immutable), "immutable")...)
		errs = append(errs, changedImmutable(reflect.DeepEqual(s.Data, old.Data), "data")...)
	}
	return append(errs, validateSecret(s)...)
}

func secretWarnings(s *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
