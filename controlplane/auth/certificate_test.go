package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/clientcmd"
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

// ND12: two years switched off: the cluster's identity still holds, and an administrator's certificate that has ended meanwhile is
// made anew.
func TestHostile_ND12(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path, who := filepath.Join(dir, "admin.yaml"), Leaf{CommonName: "admin", Organizations: []string{"system:masters"}}
		valid := func(p *PKI) error {
			config, err := clientcmd.LoadFromFile(path)
			if err != nil {
				return err
			}
			cert, err := parseCert(config.AuthInfos["default"].ClientCertificateData)
			if err != nil {
				return err
			}
			pool := x509.NewCertPool()
			pool.AddCert(p.CA.Cert)
			_, err = cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			return err
		}
		before, err := OpenPKI(filepath.Join(dir, "pki"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(before.WriteKubeconfig(path, "https://192.0.2.1:6443", who), valid(before)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * 365 * 24 * time.Hour) // of the bubble's clock
		if valid(before) == nil {
			t.Fatal("the administrator's certificate holds for two years: this test shows nothing")
		}
		after, err := OpenPKI(filepath.Join(dir, "pki"))
		if err != nil {
			t.Fatal(err)
		}
		if !after.CA.Cert.Equal(before.CA.Cert) {
			t.Error("the cluster's authority is another one: its nodes and pods do not know it")
		}
		if err := errors.Join(after.WriteKubeconfig(path, "https://192.0.2.1:6443", who), valid(after)); err != nil {
			t.Errorf("after two years: %v", err)
		}
	})
}
