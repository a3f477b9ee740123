// Package bootstraptoken keeps what new nodes join by: bootstrap tokens past their end are deleted, and the ConfigMap
// kube-public/cluster-info is signed with each token that may sign, so that who holds a token can trust it.
//
// sign.go is pure. The API server makes cluster-info when it starts; without it nothing is signed.
package bootstraptoken

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	tokenType corev1.SecretType = "bootstrap.kubernetes.io/token"
	infoName                    = "cluster-info"
)

// tokens keeps the bootstrap tokens alone of all Secrets.
func tokens(client kubernetes.Interface) cache.SharedIndexInformer {
	return coreinformers.NewFilteredSecretInformer(client, metav1.NamespaceSystem, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(tokenType)).String()
	})
}

// NewCleaner returns the controller that deletes tokens past their end; keys are secrets.
func NewCleaner(d controller.Deps) (*controller.Loop, error) {
	secrets := tokens(d.Client)
	loop := controller.NewLoop("token-cleaner", d.Log, 1, func(ctx context.Context, key string) (time.Duration, error) {
		s := controller.Get[corev1.Secret](secrets, key)
		if s == nil {
			return 0, nil
		}
		end, ok := expires(s)
		if !ok {
			return 0, nil
		}
		if left := time.Until(end); left > 0 {
			return left, nil
		}
		err := d.Client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(s.UID))})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	})
	loop.Own(secrets)
	return loop, controller.Watch(loop, secrets, func(s, _ *corev1.Secret) []string { return []string{s.Namespace + "/" + s.Name} })
}

// NewSigner returns the controller that signs cluster-info; its only key is the ConfigMap.
func NewSigner(d controller.Deps) (*controller.Loop, error) {
	const key = metav1.NamespacePublic + "/" + infoName
	secrets, info := tokens(d.Client), coreinformers.NewFilteredConfigMapInformer(d.Client, metav1.NamespacePublic, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", infoName).String()
	})
	loop := controller.NewLoop("bootstrap-signer", d.Log, 1, func(ctx context.Context, key string) (time.Duration, error) {
		have := controller.Get[corev1.ConfigMap](info, key)
		if have == nil {
			return 0, nil
		}
		var all []*corev1.Secret
		for _, obj := range secrets.GetStore().List() {
			all = append(all, obj.(*corev1.Secret))
		}
		want := have.DeepCopy()
		if want.Data = signed(have.Data, all, time.Now()); equality.Semantic.DeepEqual(want.Data, have.Data) {
			return 0, nil
		}
		_, err := d.Client.CoreV1().ConfigMaps(want.Namespace).Update(ctx, want, metav1.UpdateOptions{})
		return 0, err
	})
	loop.Own(secrets)
	loop.Own(info)
	return loop, errors.Join(
		controller.Watch(loop, info, func(*corev1.ConfigMap, *corev1.ConfigMap) []string { return []string{key} }),
		controller.Watch(loop, secrets, func(*corev1.Secret, *corev1.Secret) []string { return []string{key} }))
}
