// Package accounttoken fills Secrets of type kubernetes.io/service-account-token: the token of the ServiceAccount that
// the Secret's annotation names, the cluster's CA, and the namespace; and removes those whose ServiceAccount is gone.
//
// decide is pure. Such a token has no end; it is bound to its Secret, and dies with it.
package accounttoken

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const byAccount = "account"

// Deps are what the controller needs beyond the usual.
type Deps struct {
	controller.Deps
	// CA is the PEM bundle by which the API server is verified.
	CA []byte
	// Issue signs a token of a ServiceAccount that lives as long as the Secret.
	Issue func(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error)
}

type keeper struct {
	Deps
	accounts, secrets cache.SharedIndexInformer
}

// New returns the controller; keys are secrets. Of all Secrets it keeps those of the type alone.
func New(d Deps) (*controller.Loop, error) {
	k := &keeper{Deps: d, accounts: d.Informers.Core().V1().ServiceAccounts().Informer()}
	k.secrets = coreinformers.NewFilteredSecretInformer(d.Client, metav1.NamespaceAll, 0, cache.Indexers{byAccount: func(obj any) ([]string, error) {
		s := obj.(*corev1.Secret)
		return []string{s.Namespace + "/" + s.Annotations[corev1.ServiceAccountNameKey]}, nil
	}}, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String()
	})
	loop := controller.NewLoop("serviceaccount-tokens", d.Log, 1, k.reconcile)
	loop.Own(k.secrets)
	return loop, errors.Join(
		controller.Watch(loop, k.secrets, func(s, _ *corev1.Secret) []string { return []string{s.Namespace + "/" + s.Name} }),
		controller.Watch(loop, k.accounts, func(a, _ *corev1.ServiceAccount) []string {
			keys, err := k.secrets.GetIndexer().IndexKeys(byAccount, a.Namespace+"/"+a.Name)
			if err != nil {
				return nil
			}
			return keys
		}))
}

func (k *keeper) reconcile(ctx context.Context, key string) (time.Duration, error) {
	s := controller.Get[corev1.Secret](k.secrets, key)
	if s == nil || s.DeletionTimestamp != nil {
		return 0, nil
	}
	account := controller.Get[corev1.ServiceAccount](k.accounts, s.Namespace+"/"+s.Annotations[corev1.ServiceAccountNameKey])
	if decide(s, account, k.CA) == remove {
		// The informer may lag: a Secret is often made right after its account.
		live, err := k.Client.CoreV1().ServiceAccounts(s.Namespace).Get(ctx, s.Annotations[corev1.ServiceAccountNameKey], metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
		if account = live; err != nil {
			account = nil
		}
	}
	client := k.Client.CoreV1().Secrets(s.Namespace)
	switch decide(s, account, k.CA) {
	case remove:
		err := client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(s.UID))})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	case fill:
		next := s.DeepCopy()
		if next.Data == nil {
			next.Data = map[string][]byte{}
		}
		next.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
		next.Data[corev1.ServiceAccountRootCAKey], next.Data[corev1.ServiceAccountNamespaceKey] = k.CA, []byte(s.Namespace)
		if len(next.Data[corev1.ServiceAccountTokenKey]) == 0 {
			token, err := k.Issue(account, s)
			if err != nil {
				return 0, fmt.Errorf("token of service account %s for secret %s: %w", account.Name, key, err)
			}
			next.Data[corev1.ServiceAccountTokenKey] = []byte(token)
		}
		if _, err := client.Update(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
	}
	return 0, nil
}
