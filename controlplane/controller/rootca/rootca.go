// Package rootca publishes the CA by which pods verify the API server: as the ConfigMap kube-root-ca.crt in every namespace and as a
// ClusterTrustBundle.
package rootca

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
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

// signer is the one whose roots the API server's certificate is verified by.
const signer = "kubernetes.io/kube-apiserver-serving"

// NewBundle returns the controller of the signer's ClusterTrustBundle, which has the same CA for pods that mount it (KEP-3257); keys are
// the bundles' names. Others of this signer are removed: its roots are those of this cluster alone.
func NewBundle(d controller.Deps, ca []byte) (*controller.Loop, error) {
	bundles := d.Informers.Certificates().V1().ClusterTrustBundles().Informer()
	own := fmt.Sprintf("%s:%.12x", strings.ReplaceAll(signer, "/", ":"), sha256.Sum256(ca))
	client := d.Client.CertificatesV1().ClusterTrustBundles()
	loop := controller.NewLoop("trustbundle", d.Log, 1, func(ctx context.Context, key string) (time.Duration, error) {
		have := controller.Get[certificatesv1.ClusterTrustBundle](bundles, key)
		var err error
		switch {
		case key != own:
			err = client.Delete(ctx, key, metav1.DeleteOptions{})
		case have == nil:
			_, err = client.Create(ctx, &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: own},
				Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: string(ca)}}, metav1.CreateOptions{})
		case have.Spec.TrustBundle != string(ca):
			now := have.DeepCopy()
			now.Spec.TrustBundle = string(ca)
			_, err = client.Update(ctx, now, metav1.UpdateOptions{})
		}
		if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	})
	loop.Add(own)
	return loop, controller.Watch(loop, bundles, func(b, _ *certificatesv1.ClusterTrustBundle) []string {
		if b.Spec.SignerName != signer {
			return nil
		}
		return []string{b.Name}
	})
}
