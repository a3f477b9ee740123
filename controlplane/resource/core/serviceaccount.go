package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/resource"
)

const enforceMountableSecrets = "kubernetes.io/enforce-mountable-secrets"

func serviceAccountKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ServiceAccount", Plural: "serviceaccounts", ShortNames: []string{"sa"}, Namespaced: true,
		New:          func() runtime.Object { return &corev1.ServiceAccount{} },
		NewList:      func() runtime.Object { return &corev1.ServiceAccountList{} },
		ValidateName: apivalidation.ValidateServiceAccountName,
	}, resource.Rules[*corev1.ServiceAccount]{
		PrepareForCreate: func(_ context.Context, sa *corev1.ServiceAccount) { keepSecretNames(sa) },
		PrepareForUpdate: func(_ context.Context, sa, _ *corev1.ServiceAccount) { keepSecretNames(sa) },
		Warnings:         serviceAccountWarnings,
	})
}

// keepSecretNames drops everything but the names: a reference into another namespace must not be storable.
func keepSecretNames(sa *corev1.ServiceAccount) {
	for i, secret := range sa.Secrets {
		sa.Secrets[i] = corev1.ObjectReference{Name: secret.Name}
	}
}

func serviceAccountWarnings(_ context.Context, sa, old *corev1.ServiceAccount) []string {
	if old != nil {
		if _, had := old.Annotations[enforceMountableSecrets]; had {
			return nil
		}
	}
	if _, has := sa.Annotations[enforceMountableSecrets]; !has {
		return nil
	}
	return []string{fmt.Sprintf("metadata.annotations[%s]: deprecated in v1.32+; "+
		"prefer separate namespaces to isolate access to mounted secrets", enforceMountableSecrets)}
}
