package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

const (
	client  = certificatesv1.KubeAPIServerClientSignerName
	kubelet = certificatesv1.KubeAPIServerClientKubeletSignerName
	serving = certificatesv1.KubeletServingSignerName
)

// ask makes a request: subject "CN/O", usages by their first letters: s(ignature) e(ncipherment) c(lient) v (server) a(ny).
func ask(t *testing.T, signer, subject, uses string, edit ...func(*x509.CertificateRequest)) *csr {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name, org, _ := strings.Cut(subject, "/")
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	if org != "" {
		tmpl.Subject.Organization = strings.Split(org, ",")
	}
	for _, e := range edit {
		e(tmpl)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &csr{ObjectMeta: metav1.ObjectMeta{Name: "r", CreationTimestamp: metav1.NewTime(now)}}
	r.Spec.SignerName, r.Spec.Request = signer, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	for _, u := range uses {
		r.Spec.Usages = append(r.Spec.Usages, map[rune]certificatesv1.KeyUsage{'s': certificatesv1.UsageDigitalSignature, 'e': certificatesv1.UsageKeyEncipherment,
			'c': certificatesv1.UsageClientAuth, 'v': certificatesv1.UsageServerAuth, 'a': certificatesv1.UsageAny}[u])
	}
	return r
}

func set(r *csr, types ...certificatesv1.RequestConditionType) *csr {
	for _, t := range types {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: t, Status: corev1.ConditionTrue, LastUpdateTime: metav1.NewTime(now)})
	}
	return r
}

func by(user string, r *csr) *csr {
	r.Spec.Username = user
	return r
}

func dns(r *x509.CertificateRequest)   { r.DNSNames = []string{"n1"} }
func ip(r *x509.CertificateRequest)    { r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }
func email(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b.example"} }

func TestDecide(t *testing.T) {
	const approved, denied, failed = certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed
	const node = "system:node:n1/system:nodes"
	for _, c := range []struct {
		name string
		r    *csr
		want string // sign, or failed: words, or the subresource
	}{
		{"a user's request waits for a person", ask(t, client, "jane/dev", "sc"), ""},
		{"approved", set(ask(t, client, "jane/dev", "sec"), approved), "sign"},
		{"denied too", set(ask(t, client, "jane/dev", "sc"), approved, denied), ""},
		{"failed before", set(ask(t, client, "jane/dev", "sc"), approved, failed), ""},
		{"another's signer", set(ask(t, "example.com/s", "jane", "sc"), approved), ""},
		{"a client that wants to serve", set(ask(t, client, "jane", "scv"), approved), `failed: usage "server auth" is not allowed`},
		{"a client that is none", set(ask(t, client, "jane", "s"), approved), `failed: usages do not include "client auth"`},
		{"a new node", by("system:bootstrap:abcdef", ask(t, kubelet, node, "sec")), "nodeclient"},
		{"a node renews", by("system:node:n1", ask(t, kubelet, node, "sc")), "selfnodeclient"},
		{"a node for another", by("system:node:n2", ask(t, kubelet, node, "sc")), "nodeclient"},
		{"not a node's name", ask(t, kubelet, "jane/system:nodes", "sc"), ""},
		{"not a node's group", ask(t, kubelet, "system:node:n1/system:masters", "sc"), ""},
		{"one group too many", ask(t, kubelet, "system:node:n1/system:nodes,system:masters", "sc"), ""},
		{"a node's client with names", ask(t, kubelet, node, "sc", dns), ""},
		{"approved against the rules", set(ask(t, kubelet, node, "sc", ip), approved), "failed: IP subjectAltNames are not allowed"},
		{"a kubelet's serving certificate waits for a person", ask(t, serving, node, "sv", dns), ""},
		{"and is signed", set(ask(t, serving, node, "sv", dns, ip), approved), "sign"},
		{"without a name", set(ask(t, serving, node, "sv"), approved), "failed: DNS or IP subjectAltName is required"},
		{"with an email", set(ask(t, serving, node, "sv", dns, email), approved), "failed: email subjectAltNames are not allowed"},
		{"for clients", set(ask(t, serving, node, "sc", dns), approved), `failed: usages do not include "server auth"`},
	} {
		parsed, err := parse(c.r)
		if err != nil {
			t.Fatal(err)
		}
		d := decide(c.r, parsed, nil, now)
		got := d.approve
		if d.sign {
			got += "sign"
		}
		if d.failed != nil {
			got += "failed: " + d.failed.Error()
		}
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) || d.remove || d.again <= 0 {
			t.Errorf("%s: %q (%+v), want %q", c.name, got, d, c.want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	r := set(ask(t, client, "jane", "sc"), certificatesv1.CertificateApproved)
	r.Spec.Request = append(r.Spec.Request, "more"...)
	parsed, err := parse(r)
	if d := decide(r, parsed, err, now); d.sign || d.failed == nil {
		t.Errorf("%+v", d)
	}
}

func TestOldRequestsGo(t *testing.T) {
	for _, c := range []struct {
		name string
		r    *csr
		keep time.Duration
	}{
		{"pending", ask(t, client, "jane", "sc"), keepPending},
		{"approved for a signer that is not there", set(ask(t, "example.com/s", "jane", "sc"), certificatesv1.CertificateApproved), keepPending},
		{"denied", set(ask(t, client, "jane", "sc"), certificatesv1.CertificateDenied), keepDecided},
		{"failed", set(ask(t, client, "jane", "sc"), certificatesv1.CertificateApproved, certificatesv1.CertificateFailed), keepDecided},
	} {
		if d := decide(c.r, nil, x509.ErrUnsupportedAlgorithm, now.Add(c.keep-time.Second)); d.remove || d.again != time.Second {
			t.Errorf("%s, before: %+v", c.name, d)
		}
		if d := decide(c.r, nil, nil, now.Add(c.keep)); !d.remove {
			t.Errorf("%s, after: %+v", c.name, d)
		}
	}
}

func TestOrder(t *testing.T) {
	r := ask(t, client, "jane", "sec")
	r.Spec.ExpirationSeconds = ptr.To[int32](5)
	o := order(r)
	if o.Lifetime != shortest || o.Key != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || len(o.Extended) != 1 || o.Extended[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("%+v", o)
	}
}

// FuzzParse: a request is anybody's bytes.
func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := set(&csr{Spec: certificatesv1.CertificateSigningRequestSpec{Request: data, SignerName: kubelet}, Status: certificatesv1.CertificateSigningRequestStatus{}}, certificatesv1.CertificateApproved)
		parsed, err := parse(r)
		if d := decide(r, parsed, err, r.CreationTimestamp.Time); err != nil && d.sign {
			t.Fatal("what cannot be read is signed")
		}
	})
}
