package volume

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// issuer is a signer that answers each request when it is looked at.
type issuer struct {
	t       *testing.T
	ca      *ecdsa.PrivateKey
	now     func() time.Time
	refuse  bool
	silent  bool
	made    int
	pending map[string]*certificatesv1.PodCertificateRequest
}

func (i *issuer) request(_ context.Context, _ *corev1.Pod, spec certificatesv1.PodCertificateRequestSpec) (*certificatesv1.PodCertificateRequest, error) {
	i.made++
	r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("req-%d", i.made)}, Spec: spec}
	i.pending[r.Name] = r
	return r, nil
}

func (i *issuer) get(_ context.Context, _, name string) (*certificatesv1.PodCertificateRequest, error) {
	r := i.pending[name]
	if r == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "podcertificaterequests"}, name)
	}
	r = r.DeepCopy()
	switch {
	case i.silent:
	case i.refuse:
		r.Status.Conditions = []metav1.Condition{{Type: "Denied", Status: "True", Reason: "UnsupportedKeyType", Message: "take another"}}
	default:
		i.issue(r)
	}
	return r, nil
}

func (i *issuer) issue(r *certificatesv1.PodCertificateRequest) {
	stub, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		i.t.Fatal(err)
	}
	from := i.now()
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(i.made)), Subject: pkix.Name{CommonName: r.Name}, NotBefore: from, NotAfter: from.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, stub.PublicKey, i.ca)
	if err != nil {
		i.t.Fatal(err)
	}
	r.Status = certificatesv1.PodCertificateRequestStatus{CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		NotBefore: ptr(metav1.NewTime(from)), BeginRefreshAt: ptr(metav1.NewTime(from.Add(30 * time.Minute))), NotAfter: ptr(metav1.NewTime(template.NotAfter)),
		Conditions: []metav1.Condition{{Type: "Issued", Status: "True"}}}
}

// A pod's certificate fits its key in every form, is renewed when its signer says so, and the old one serves while it is valid.
func TestPodCertificate(t *testing.T) {
	m, w := setup(t)
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &issuer{t: t, ca: ca, now: m.deps.Now, pending: map[string]*certificatesv1.PodCertificateRequest{}}
	m.deps.RequestCertificate, m.deps.GetCertificateRequest = s.request, s.get
	var sources []corev1.VolumeProjection
	kinds := []string{"ED25519", "ECDSAP256", "ECDSAP384", "ECDSAP521", "RSA3072"}
	for _, kind := range kinds {
		sources = append(sources, corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/s", KeyType: kind,
			CredentialBundlePath: kind + "/bundle", KeyPath: kind + "/key", CertificateChainPath: kind + "/chain"}})
	}
	p := pod(vol("v", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}))
	dir := mustMount(t, m, p)["v"].HostPath
	read := func(path string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, kind := range kinds {
		if _, err := tls.X509KeyPair(read(kind+"/chain"), read(kind+"/key")); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := tls.X509KeyPair(read(kind+"/bundle"), read(kind+"/bundle")); err != nil {
			t.Errorf("%s in one file: %v", kind, err)
		}
	}
	first := string(read("ED25519/bundle"))
	pass := func(d time.Duration) string {
		t.Helper()
		func() { defer w.lock()(); w.now = w.now.Add(d) }()
		if err := m.Refresh(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		return string(read("ED25519/bundle"))
	}
	if want := m.deps.Now().Add(30 * time.Minute); !m.RefreshAt(p.UID).Equal(want) {
		t.Errorf("renewed at %v, want %v", m.RefreshAt(p.UID), want)
	}
	if pass(20*time.Minute) != first || s.made != len(kinds) {
		t.Errorf("another certificate before it was due, %d requests", s.made)
	}
	s.silent = true
	if pass(15*time.Minute) != first {
		t.Error("a certificate that nobody has issued")
	}
	s.silent = false
	if pass(time.Minute) == first || s.made != 2*len(kinds) {
		t.Errorf("not renewed, %d requests", s.made)
	}
	s.silent = true
	func() { defer w.lock()(); w.now = w.now.Add(2 * time.Hour) }()
	clear(s.pending)
	short, cancel := context.WithTimeout(t.Context(), 3*issueLook)
	defer cancel()
	if err := m.Refresh(short, p); err == nil {
		t.Error("a certificate that has expired is served")
	}
}

func TestPodCertificateRefused(t *testing.T) {
	m, _ := setup(t)
	s := &issuer{t: t, now: m.deps.Now, refuse: true, pending: map[string]*certificatesv1.PodCertificateRequest{}}
	m.deps.RequestCertificate, m.deps.GetCertificateRequest = s.request, s.get
	p := pod(vol("v", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/s", KeyType: "ED25519", KeyPath: "key"}}}}}))
	for range 2 {
		if _, err := m.Mount(t.Context(), p); err == nil || !strings.Contains(err.Error(), `"req-1" is Denied: UnsupportedKeyType: take another`) {
			t.Errorf("mount: %v", err)
		}
	}
	if s.made != 1 {
		t.Errorf("a signer that said no was asked %d times", s.made)
	}
}

// A bundle is selected by name, or by signer and labels; each anchor is there once and comments are not.
func TestTrustBundle(t *testing.T) {
	m, _ := setup(t)
	root := func(text string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)}))
	}
	bundle := func(name, signer, label, data string) certificatesv1.ClusterTrustBundle {
		return certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"l": label}},
			Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: data}}
	}
	all := []certificatesv1.ClusterTrustBundle{
		bundle("plain", "", "", "a comment\n"+root("one")),
		bundle("s:a", "example.com/s", "x", root("two")+root("one")), bundle("s:b", "example.com/s", "y", root("two")+root("three")),
	}
	m.deps.TrustBundles = func(_ context.Context, name, signer string) (out []certificatesv1.ClusterTrustBundle, _ error) {
		for _, b := range all {
			if name != "" && b.Name == name || signer != "" && b.Spec.SignerName == signer {
				out = append(out, b)
			}
		}
		return out, nil
	}
	signer := ptr("example.com/s")
	for name, c := range map[string]struct {
		in   corev1.ClusterTrustBundleProjection
		want []string
		none bool
	}{
		"by name":              {in: corev1.ClusterTrustBundleProjection{Name: ptr("plain")}, want: []string{"one"}},
		"by signer":            {in: corev1.ClusterTrustBundleProjection{SignerName: signer, LabelSelector: &metav1.LabelSelector{}}, want: []string{"one", "two", "three"}},
		"by label":             {in: corev1.ClusterTrustBundleProjection{SignerName: signer, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"l": "y"}}}, want: []string{"two", "three"}},
		"without a selector":   {in: corev1.ClusterTrustBundleProjection{SignerName: signer}, none: true},
		"missing":              {in: corev1.ClusterTrustBundleProjection{Name: ptr("other")}, none: true},
		"missing and optional": {in: corev1.ClusterTrustBundleProjection{Name: ptr("other"), Optional: ptr(true)}},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.Path = "roots.pem"
			p := pod(vol("v", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &c.in}}}}))
			p.UID = types.UID(name)
			mounted, err := m.Mount(t.Context(), p)
			if c.none {
				if err == nil || !strings.Contains(err.Error(), "roots.pem") {
					t.Errorf("mount: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(mounted["v"].HostPath, "roots.pem"))
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range c.want {
				if strings.Count(string(b), root(text)) != 1 {
					t.Errorf("%q is not there once:\n%s", text, b)
				}
			}
			if n := strings.Count(string(b), "BEGIN"); n != len(c.want) || strings.Contains(string(b), "comment") {
				t.Errorf("%d anchors, want %d:\n%s", n, len(c.want), b)
			}
		})
	}
}
