package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

func request(raw string, end time.Time) *http.Request {
	return &http.Request{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte(raw), NotAfter: end}}}}
}

func TestCertificatesAreVerifiedOnce(t *testing.T) {
	verified := 0
	c := newCertCache(authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		verified++
		return &authenticator.Response{User: &user.DefaultInfo{Name: string(r.TLS.PeerCertificates[0].Raw)}}, true, nil
	}))
	later := time.Now().Add(time.Hour)
	for range 3 {
		if r, ok, err := c.AuthenticateRequest(request("a", later)); !ok || err != nil || r.User.GetName() != "a" {
			t.Fatalf("a is %v, %v, %v", r, ok, err)
		}
	}
	if verified != 1 {
		t.Errorf("verified %d times; want once", verified)
	}
	ended := time.Now().Add(-time.Hour)
	for range 2 {
		_, _, _ = c.AuthenticateRequest(request("old", ended))
	}
	if verified != 3 {
		t.Errorf("a certificate that has ended was verified %d times; want each time", verified-1)
	}
	for i := range 3 * certCacheSize {
		_, _, _ = c.AuthenticateRequest(request(fmt.Sprint(i), later))
	}
	if n := len(c.byKey); n > certCacheSize || n != c.order.Len() {
		t.Errorf("%d certificates are kept, %d in order; want at most %d", n, c.order.Len(), certCacheSize)
	}
}

func TestPKIIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenPKI(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenPKI(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !first.CA.Cert.Equal(second.CA.Cert) || !first.TokenKey.Equal(second.TokenKey) {
		t.Error("a second open made another identity")
	}
	pair, err := first.CA.Issue(Leaf{CommonName: "x", Organizations: []string{"g"}, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parseCert(pair.Cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(second.CA.Cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate can serve")
	}
}
