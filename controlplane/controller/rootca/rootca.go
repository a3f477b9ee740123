// Package rootca keeps the ConfigMap kube-root-ca.crt in every namespace, with the CA by which pods verify the API server.
package rootca

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	name        = "kube-root-ca.crt"
	key         = "ca.crt"
	note        = "kubernetes.io/description"
	description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

// New returns the controller; keys are namespaces. ca is the PEM bundle.
func New(d controller.Deps, ca []byte) (*controller.Loop, error) {
	namespaces := d.Informers.Core().V1().Namespaces().Informer()
	configMaps := d.Informers.Core().V1().ConfigMaps().Informer()
	want := map[string]string{key: string(ca)}
	loop := controller.NewLoop("rootca", d.Log, 1, func(ctx context.Context, namespace string) (time.Duration, error) {
		ns := controller.Get[corev1.Namespace](namespaces, namespace)
		if ns == nil || ns.DeletionTimestamp != nil {
			return 0, nil
		}
		have := controller.Get[corev1.ConfigMap](configMaps, namespace+"/"+name)
		if have != nil && maps.Equal(have.Data, want) && have.Annotations[note] != "" {
			return 0, nil
		}
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{note: description}}, Data: want}
		client := d.Client.CoreV1().ConfigMaps(namespace)
		var err error
		if have == nil {
			_, err = client.Create(ctx, cm, metav1.CreateOptions{})
		} else {
			cm.ResourceVersion = have.ResourceVersion
			_, err = client.Update(ctx, cm, metav1.UpdateOptions{})
		}
		if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || controller.Terminating(err) {
			err = nil
		}
		return 0, err
	})
	if err := controller.Watch(loop, namespaces, func(ns, _ *corev1.Namespace) []string { return []string{ns.Name} }); err != nil {
		return nil, err
	}
	return loop, controller.Watch(loop, configMaps, func(cm, _ *corev1.ConfigMap) []string {
		if cm.Name != name {
			return nil
		}
		return []string{cm.Namespace}
	})
}
