package accounttoken

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

// The labels of a token's Secret: when it was last used, which the authenticator writes, and since when it is refused. Dates.
const (
	lastUsed     = "kubernetes.io/legacy-token-last-used"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
)

const (
	unused = 365 * 24 * time.Hour // how long a token may be of no use before it is refused, and refused before it goes
	look   = 24 * time.Hour
	// tracking is the ConfigMap in kube-system that says since when uses are noted.
	tracking = "kube-apiserver-legacy-service-account-token-tracking"
)

type cleaner struct {
	controller.Deps
	secrets        typedcorev1.SecretsGetter
	accounts, pods cache.SharedIndexInformer
}

// NewCleaner returns the controller that refuses tokens in Secrets that were made for ServiceAccounts by themselves, as Kubernetes
// did before 1.24, once they are a year old and were not used for a year, and removes them a year later (KEP-2799). It looks daily;
// secrets, whose identity may list them, is how.
func NewCleaner(d controller.Deps, secrets typedcorev1.SecretsGetter) (*controller.Loop, error) {
	c := &cleaner{Deps: d, secrets: secrets, accounts: d.Informers.Core().V1().ServiceAccounts().Informer(), pods: d.Informers.Core().V1().Pods().Informer()}
	loop := controller.NewLoop("legacy-serviceaccount-token-cleaner", d.Log, 1, func(ctx context.Context, _ string) (time.Duration, error) {
		return look, c.clean(ctx, time.Now())
	})
	loop.Needs(c.accounts, c.pods)
	loop.Add("all")
	return loop, nil
}

func (c *cleaner) clean(ctx context.Context, now time.Time) error {
	m, err := c.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, tracking, metav1.GetOptions{})
	if err != nil {
		return err
	}
	since, err := time.Parse(time.DateOnly, m.Data["since"])
	if err != nil || now.Sub(since) < unused {
		return err // a use before that would not be known of
	}
	list, err := c.secrets.Secrets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String()})
	if err != nil {
		return err
	}
	var errs []error
	for i := range list.Items {
		s := &list.Items[i]
		objs, err := c.pods.GetIndexer().ByIndex(cache.NamespaceIndex, s.Namespace)
		if err != nil {
			return err
		}
		account := controller.Get[corev1.ServiceAccount](c.accounts, s.Namespace+"/"+s.Annotations[corev1.ServiceAccountNameKey])
		errs = append(errs, c.act(ctx, s, age(s, account, objs, now), now))
	}
	return errors.Join(errs...)
}

func (c *cleaner) act(ctx context.Context, s *corev1.Secret, a action, now time.Time) error {
	client := c.Client.CoreV1().Secrets(s.Namespace)
	var err error
	switch a {
	case invalidate:
		var patch []byte
		if patch, err = json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.UID, "resourceVersion": s.ResourceVersion,
			"labels": map[string]string{invalidSince: now.UTC().Format(time.DateOnly)}}}); err == nil {
			_, err = client.Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		}
	case remove:
		err = client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // used or changed meanwhile: the next day tells
	}
	return err
}

// age decides on a token; pods are those of its namespace, account is nil if it is gone: then another controller sees to it.
func age(s *corev1.Secret, account *corev1.ServiceAccount, pods []any, now time.Time) action {
	year := now.Add(-unused)
	day := year.UTC().Format(time.DateOnly)
	named := func(r corev1.ObjectReference) bool { return r.Name == s.Name }
	switch {
	case !s.CreationTimestamp.Time.Before(year) || s.DeletionTimestamp != nil || s.Labels[lastUsed] >= day:
	case account == nil || !slices.ContainsFunc(account.Secrets, named): // made by hand
	case slices.ContainsFunc(pods, func(p any) bool { return mounts(p.(*corev1.Pod), s.Name) }):
	default:
		since := s.Labels[invalidSince]
		if _, err := time.Parse(time.DateOnly, since); err != nil {
			return invalidate
		}
		if since < day {
			return remove
		}
	}
	return nothing
}

func mounts(p *corev1.Pod, secret string) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == secret })
}
