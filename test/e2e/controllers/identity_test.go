package controllers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

// authority signs pods' certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// sign answers a request.
func (a authority) sign(t *testing.T, client kubernetes.Interface, r *certificatesv1.PodCertificateRequest) {
	t.Helper()
	stub, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(-time.Minute).Truncate(time.Second)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: r.Spec.PodName}, NotBefore: from, NotAfter: from.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, stub.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	r.Status = certificatesv1.PodCertificateRequestStatus{CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		NotBefore: ptr.To(metav1.NewTime(from)), BeginRefreshAt: ptr.To(metav1.NewTime(from.Add(30 * time.Minute))), NotAfter: ptr.To(metav1.NewTime(template.NotAfter)),
		Conditions: []metav1.Condition{{Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue, Reason: "Signed", LastTransitionTime: metav1.Now()}}}
	if _, err := client.CertificatesV1().PodCertificateRequests(r.Namespace).UpdateStatus(t.Context(), r, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestPodIdentity: a pod has a certificate of its own, which its signer issued for the key that the node made, and the roots that a bundle
// publishes, which follow the bundle.
func TestPodIdentity(t *testing.T) {
	t.Parallel()
	c := labtest.Cluster(t)
	client := labtest.Client(t, c)
	ours, other := newAuthority(t, "ours"), newAuthority(t, "other")
	const pod = "identity"
	bundles := client.CertificatesV1().ClusterTrustBundles()
	bundle, err := bundles.Create(t.Context(), &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: pod}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: ours.pem}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	labtest.Apply(t, c, `apiVersion: v1
kind: Pod
metadata: {name: `+pod+`}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"], volumeMounts: [{name: identity, mountPath: /identity}]}]
  volumes:
  - name: identity
    projected:
      sources:
      - clusterTrustBundle: {name: `+pod+`, path: roots.pem}
      - podCertificate: {signerName: example.com/identity, keyType: ED25519, credentialBundlePath: bundle.pem, userAnnotations: {example.com/for: test}}
`)
	labtest.Eventually(t, "the node asks", func() string {
		list, err := client.CertificatesV1().PodCertificateRequests("default").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.podName=" + pod})
		if err != nil || len(list.Items) == 0 {
			return fmt.Sprint(len(list.Items), err)
		}
		if got := list.Items[0].Spec.UnverifiedUserAnnotations["example.com/for"]; got != "test" {
			t.Errorf("annotation %q", got)
		}
		ours.sign(t, client, &list.Items[0])
		return ""
	})
	labtest.WaitPod(t, c, pod, "condition=Ready")
	credentials := []byte(labtest.Kubectl(t, c, "exec", pod, "--", "cat", "/identity/bundle.pem"))
	pair, err := tls.X509KeyPair(credentials, credentials)
	if err != nil {
		t.Fatal(err)
	}
	roots := func() string { return labtest.Kubectl(t, c, "exec", pod, "--", "cat", "/identity/roots.pem") }
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(roots())) {
		t.Fatalf("no roots in %q", roots())
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool}); err != nil || leaf.Subject.CommonName != pod {
		t.Errorf("certificate of %q: %v", leaf.Subject.CommonName, err)
	}
	bundle.Spec.TrustBundle += other.pem
	if _, err := bundles.Update(t.Context(), bundle, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "the pod has the new root too", func() string {
		if got := roots(); strings.Count(got, "BEGIN CERTIFICATE") != 2 {
			return got
		}
		return ""
	})
}
