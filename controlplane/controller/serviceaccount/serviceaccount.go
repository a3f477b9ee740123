// Package serviceaccount keeps a ServiceAccount named "default" in every active namespace; pods without one of their own run as it. In
// kube-system it keeps those that this control plane's own parts act as.
package serviceaccount

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/controller"
)

const account = "default"

// New returns the controller; keys are namespaces. own are the accounts of kube-system.
func New(d controller.Deps, own []string) (*controller.Loop, error) {
	namespaces := d.Informers.Core().V1().Namespaces().Informer()
	accounts := d.Informers.Core().V1().ServiceAccounts().Informer()
	wanted := func(namespace string) []string {
		if namespace == metav1.NamespaceSystem {
			return append([]string{account}, own...)
		}
		return []string{account}
	}
	loop := controller.NewLoop("serviceaccount", d.Log, 1, func(ctx context.Context, key string) (time.Duration, error) {
		ns := controller.Get[corev1.Namespace](namespaces, key)
		if ns == nil || ns.DeletionTimestamp != nil {
			return 0, nil
		}
		for _, name := range wanted(key) {
			if controller.Get[corev1.ServiceAccount](accounts, key+"/"+name) != nil {
				continue
			}
			sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key, Name: name}}
			_, err := d.Client.CoreV1().ServiceAccounts(key).Create(ctx, sa, metav1.CreateOptions{})
			if controller.Terminating(err) || apierrors.IsNotFound(err) {
				return 0, nil
			}
			if apierrors.IsAlreadyExists(err) {
				err = nil
			}
			return 0, err // the next one when this is seen: other namespaces' pods wait for theirs
		}
		return 0, nil
	})
	if err := controller.Watch(loop, namespaces, func(ns, _ *corev1.Namespace) []string { return []string{ns.Name} }); err != nil {
		return nil, err
	}
	return loop, controller.Watch(loop, accounts, func(sa, _ *corev1.ServiceAccount) []string {
		if !slices.Contains(wanted(sa.Namespace), sa.Name) {
			return nil
		}
		return []string{sa.Namespace}
	})
}
