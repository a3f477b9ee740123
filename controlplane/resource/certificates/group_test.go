package certificates

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(),
		resourcetest.Row{Plural: "certificatesigningrequests", Short: "csr", Kind: "CertificateSigningRequest"},
		resourcetest.Row{Plural: "clustertrustbundles", Kind: "ClusterTrustBundle"},
		resourcetest.Row{Plural: "podcertificaterequests", Kind: "PodCertificateRequest", Namespaced: true})
}

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func der(t *testing.T) []byte {
	t.Helper()
	d, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "c"}}, key(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func certificate(t *testing.T, ca bool) string {
	t.Helper()
	k := key(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: ca, BasicConstraintsValid: true}
	d, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d}))
}

func newRequest(t *testing.T) *csr {
	return &csr{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der(t)}),
		SignerName: "example.com/s", Usages: []certificatesv1.KeyUsage{"client auth"},
	}}
}

func TestRequesterIsWrittenByTheServer(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "CertificateSigningRequest")
	r := newRequest(t)
	r.Spec.Username, r.Spec.Groups = "root", []string{"system:masters"}
	ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "alice", Groups: []string{"dev"}, Extra: map[string][]string{"k": {"v"}}})
	k.PrepareForCreate(ctx, r)
	if r.Spec.Username != "alice" || len(r.Spec.Groups) != 1 || r.Spec.Groups[0] != "dev" || r.Spec.Extra["k"][0] != "v" {
		t.Errorf("%+v", r.Spec)
	}
}

func TestValidateRequest(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "CertificateSigningRequest")
	for _, c := range []struct {
		edit func(*csr)
		want []string
	}{
		{func(*csr) {}, nil},
		{func(r *csr) { r.Spec.Request = []byte("x") }, []string{"PEM block type must be CERTIFICATE REQUEST"}},
		{func(r *csr) { r.Spec.Usages = nil }, []string{"spec.usages: Required value"}},
		{func(r *csr) { r.Spec.Usages = []certificatesv1.KeyUsage{"magic"} }, []string{`spec.usages[0]: Unsupported value: "magic"`}},
		{func(r *csr) { r.Spec.SignerName = legacySigner }, []string{"the legacy signerName is not allowed via this API version"}},
		{func(r *csr) { r.Spec.ExpirationSeconds = ptr.To[int32](5) }, []string{"spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)"}},
	} {
		r := newRequest(t)
		c.edit(r)
		resourcetest.CheckErrors(t, k.Validate(t.Context(), r), c.want...)
	}
}

func TestEachEndpointChangesItsOwnPart(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "CertificateSigningRequest")
	old := newRequest(t)
	approved := old.DeepCopy()
	approved.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Approved", Status: "True"}}
	issued := old.DeepCopy()
	issued.Status.Certificate = []byte(certificate(t, false))
	const addApproved, setCertificate = `status.conditions: Forbidden: updates may not add a condition of type "Approved"`, "status.certificate: Forbidden: updates may not set certificate content"
	approve := approvalStrategy{}
	resourcetest.CheckErrors(t, approve.ValidateUpdate(t.Context(), approved, old))
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), approved, old), addApproved)
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), approved, old), addApproved)
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), issued, old))
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), issued, old), setCertificate)
	resourcetest.CheckErrors(t, approve.ValidateUpdate(t.Context(), issued, old), setCertificate)
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), old, approved), `updates may not remove a condition of type "Approved"`)
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), old, issued), "updates may not modify existing certificate content")
	both := approved.DeepCopy()
	both.Status.Conditions = append(both.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: "Denied", Status: "True"})
	resourcetest.CheckErrors(t, approve.ValidateUpdate(t.Context(), both, approved), "must specify at most one of: `conditions[{")

	odd := old.DeepCopy()
	odd.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Mine", Status: "Perhaps"}}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), odd, old), `status.conditions[0].status: Unsupported value: "Perhaps": supported values: "False", "True", "Unknown"`)
	reworded := approved.DeepCopy()
	reworded.Status.Conditions[0].Message = "by the signer"
	if k.PrepareStatusUpdate(t.Context(), reworded, approved); reworded.Status.Conditions[0].Message != "" {
		t.Error("a signer rewords an approval")
	}

	smuggled := approved.DeepCopy()
	smuggled.Spec.SignerName, smuggled.Status.Certificate = "other.com/s", []byte("x")
	approve.PrepareForUpdate(t.Context(), smuggled, old)
	if smuggled.Spec.SignerName != old.Spec.SignerName || smuggled.Status.Certificate != nil || smuggled.Status.Conditions[0].LastUpdateTime.IsZero() {
		t.Errorf("%+v", smuggled)
	}
}

func TestValidateBundle(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ClusterTrustBundle")
	of := func(name, signer, text string) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text}}
	}
	ca := certificate(t, true)
	for _, c := range []struct {
		bundle *certificatesv1.ClusterTrustBundle
		want   []string
	}{
		{of("b", "", ca), nil},
		{of("example.com:s:b", "example.com/s", ca), nil},
		{of("b", "example.com/s", ca), []string{"ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:"}},
		{of("a:b", "", ca), []string{`must not have ":" in its name`}},
		{of("b", "", ""), []string{"at least one trust anchor must be provided"}},
		{of("b", "", ca+ca), []string{"duplicate trust anchor (indices [0 1])"}},
		{of("b", "", certificate(t, false)), []string{"entry 0 does not have the CA bit set"}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), c.bundle), c.want...)
	}
}

func TestValidatePodRequest(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "PodCertificateRequest")
	r := &podCertificate{Spec: certificatesv1.PodCertificateRequestSpec{
		SignerName: "example.com/s", PodName: "p", PodUID: "u", ServiceAccountName: "s", ServiceAccountUID: "u", NodeName: "n", NodeUID: "u", StubPKCS10Request: der(t)}}
	k.Default(r)
	resourcetest.CheckErrors(t, k.Validate(t.Context(), r))
	bad := r.DeepCopy()
	bad.Spec.PodUID, bad.Spec.MaxExpirationSeconds, bad.Spec.StubPKCS10Request = "", ptr.To[int32](60), []byte("x")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), bad),
		`spec.podUID: Invalid value: "": must not be empty`, "spec.maxExpirationSeconds: Invalid value: 60: must be in the range [3600, 7862400]", "spec.stubPKCS10Request: Invalid value")
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), bad, r), `"MaxExpirationSeconds":60,"PKIXPublicKey":null,"ProofOfPossession":null,"StubPKCS10Request":"eA==","UnverifiedUserAnnotations":null}: field is immutable`)
	bad = r.DeepCopy()
	bad.Spec.StubPKCS10Request = make([]byte, 10*1024+1)
	resourcetest.CheckErrors(t, k.Validate(t.Context(), bad), "spec.stubPKCS10Request: Too long")
	denied := r.DeepCopy()
	denied.Status.Conditions = []metav1.Condition{{Type: "Denied", Status: "True", Reason: "No", LastTransitionTime: metav1.Unix(1, 0)}}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), denied, r))
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), r, denied), "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed")
	own := r.DeepCopy()
	own.Spec.SignerName, own.Spec.MaxExpirationSeconds = "kubernetes.io/kube-apiserver-client-pod", ptr.To[int32](25*60*60)
	own.Spec.UnverifiedUserAnnotations = map[string]string{"plain": "x"}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), own), "must be in the range [3600, 86400]",
		`spec.unverifiedUserAnnotations: Invalid value: "plain": must be a domain-prefixed key`)
}

// issue answers a request for the key with a certificate of the given life.
func issue(t *testing.T, r *podCertificate, key ed25519.PrivateKey, life time.Duration) *podCertificate {
	t.Helper()
	begin := time.Now().Truncate(time.Second)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: begin, NotAfter: begin.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	out := r.DeepCopy()
	out.Status = certificatesv1.PodCertificateRequestStatus{
		Conditions:       []metav1.Condition{{Type: "Issued", Status: "True", Reason: "Yes", LastTransitionTime: metav1.NewTime(begin)}},
		CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		NotBefore:        ptr.To(metav1.NewTime(begin)), NotAfter: ptr.To(metav1.NewTime(begin.Add(life))), BeginRefreshAt: ptr.To(metav1.NewTime(begin.Add(life / 2)))}
	return out
}

func TestValidateIssuance(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "PodCertificateRequest")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &podCertificate{Spec: certificatesv1.PodCertificateRequestSpec{SignerName: "example.com/s", StubPKCS10Request: stub, MaxExpirationSeconds: ptr.To[int32](7200)}}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(*certificatesv1.PodCertificateRequestStatus)) *podCertificate {
		out := issue(t, r, key, 2*time.Hour)
		change(&out.Status)
		return out
	}
	type status = certificatesv1.PodCertificateRequestStatus
	for _, c := range []struct {
		issued *podCertificate
		want   []string
	}{
		{issue(t, r, key, 2*time.Hour), nil},
		{issue(t, r, other, 2*time.Hour), []string{"leaf certificate was not issued to the requested public key"}},
		{issue(t, r, key, 3*time.Hour), []string{"leaf certificate lifetime must be <= spec.maxExpirationSeconds (7200)"}},
		{issue(t, r, key, time.Minute), []string{"leaf certificate lifetime must be >= 1 hour"}},
		{changed(func(s *status) { s.Conditions = nil }), []string{`status is immutable unless transitioning to "Issued", "Denied", or "Failed"`}},
		{changed(func(s *status) { s.Conditions[0].Type = "Failed" }), []string{"non-condition status fields must be empty when denying or failing"}},
		{changed(func(s *status) { s.Conditions[0].Type = "Done" }), []string{`status.conditions.[0].type: Unsupported value: "Done"`}},
		{changed(func(s *status) { s.NotAfter = nil }), []string{"status.notAfter: Required value: must be present and consistent with the issued certificate"}},
		{changed(func(s *status) { s.NotBefore = ptr.To(metav1.NewTime(s.NotBefore.Add(time.Second))) }), []string{"must be set to the NotBefore time encoded in the leaf certificate"}},
		{changed(func(s *status) { s.BeginRefreshAt = s.NotAfter }), []string{"must be at least 10 minutes before status.notAfter"}},
		{changed(func(s *status) { s.CertificateChain += "-----BEGIN X-----\n-----END X-----\n" }), []string{"must consist entirely of CERTFICATE PEM blocks"}},
		{changed(func(s *status) { s.CertificateChain = "-----BEGIN X-----\n-----END X-----\n" + s.CertificateChain }), []string{"must consist entirely of CERTIFICATE PEM blocks"}},
	} {
		resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), c.issued, r), c.want...)
	}
}

func TestValidateCertificateNames(t *testing.T) {
	leaf := &x509.Certificate{DNSNames: []string{"a.example.com", "", "a..b", "a."}, EmailAddresses: []string{"a@example.com", "a"}}
	resourcetest.CheckErrors(t, validateNames(leaf, field.NewPath("p")), "should not contain empty DNSName", `p: Invalid value: "a..b": leaf certificate's DNSName should not contain '..'`,
		`p: Invalid value: "a.": leaf certificate's DNSName should not start or end with '.'`, `p: Invalid value: "a": leaf certificate should not contain invalid EmailAddress`)
}

func TestColumns(t *testing.T) {
	r := newRequest(t)
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Approved"}}
	r.Status.Certificate = []byte("x")
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "CertificateSigningRequest"), r)
	if names != "Name|Age|SignerName|Requestor|RequestedDuration|Condition" || cells[4] != "<none>" || cells[5] != "Approved,Issued" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
}
