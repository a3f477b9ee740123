// Package serviceaccount keeps a ServiceAccount named "default" in every active namespace; pods without one of their own run as it.
package serviceaccount

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/controller"
)

const account = "default"

// New returns the controller; keys are namespaces.
func New(d controller.Deps) (*controller.Loop, error) {
	namespaces := d.Informers.Core().V1().Namespaces().Informer()
	accounts := d.Informers.Core().V1().ServiceAccounts().Informer()
	loop := controller.NewLoop("serviceaccount", d.Log, 1, func(ctx context.Context, key string) (time.Duration, error) {
		ns := controller.Get[corev1.Namespace](namespaces, key)
		if ns == nil || ns.DeletionTimestamp != nil || controller.Get[corev1.ServiceAccount](accounts, key+"/"+account) != nil {
			return 0, nil
		}
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key, Name: account}}
		_, err := d.Client.CoreV1().ServiceAccounts(key).Create(ctx, sa, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) || controller.Terminating(err) || apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	})
	if err := controller.Watch(loop, namespaces, func(ns, _ *corev1.Namespace) []string { return []string{ns.Name} }); err != nil {
		return nil, err
	}
	return loop, controller.Watch(loop, accounts, func(sa, _ *corev1.ServiceAccount) []string {
		if sa.Name != account {
			return nil
		}
		return []string{sa.Namespace}
	})
}
