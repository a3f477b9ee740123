package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	caLifetime = 10 * 365 * 24 * time.Hour
	// LeafLifetime of certificates of clients and servers, upstream kubeadm's.
	LeafLifetime = 365 * 24 * time.Hour
	// backdate allows for clocks that run behind the server's.
	backdate = 5 * time.Minute
)

// PKI holds the cluster's roots of trust.
type PKI struct {
	// CA signs client and serving certificates.
	CA *Authority
	// FrontProxy signs the certificate with which the aggregation layer vouches for users.
	FrontProxy *Authority
	// TokenKey signs ServiceAccount tokens.
	TokenKey *ecdsa.PrivateKey
}

// OpenPKI loads the roots from dir and makes those that are missing. dir is made 0700.
func OpenPKI(dir string) (*PKI, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make PKI directory: %w", err)
	}
	var p PKI
	var err error
	if p.CA, err = openAuthority(dir, "ca", "keelson-ca"); err != nil {
		return nil, err
	}
	if p.FrontProxy, err = openAuthority(dir, "front-proxy-ca", "keelson-front-proxy-ca"); err != nil {
		return nil, err
	}
	if p.TokenKey, err = openKey(filepath.Join(dir, "sa.key")); err != nil {
		return nil, err
	}
	return &p, nil
}

// Authority is a certificate authority.
type Authority struct {
	Cert *x509.Certificate
	// PEM is Cert, PEM-encoded.
	PEM []byte
	key crypto.Signer
}

// Leaf describes a certificate to issue.
type Leaf struct {
	CommonName    string
	Organizations []string
	DNSNames      []string
	IPs           []net.IP
	Client        bool // usable to authenticate as a client
	Server        bool // usable to serve
	// Lifetime; 0: LeafLifetime. Never beyond the authority's own end.
	Lifetime time.Duration
}

// KeyPair is a certificate with its private key, both PEM.
type KeyPair struct{ Cert, Key []byte }

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(l Leaf) (KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, err
	}
	der, err := a.Sign(key.Public(), l)
	if err != nil {
		return KeyPair{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return KeyPair{}, err
	}
	return KeyPair{Cert: encodeCert(der), Key: keyPEM}, nil
}

// Sign returns a DER certificate for pub.
func (a *Authority) Sign(pub crypto.PublicKey, l Leaf) ([]byte, error) {
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: l.CommonName, Organization: l.Organizations},
		DNSNames:    l.DNSNames,
		IPAddresses: l.IPs,
		KeyUsage:    x509.KeyUsageDigitalSignature,
	}
	if l.Client {
		tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if l.Server {
		tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	return a.create(tmpl, pub, l.Lifetime)
}

// Uses are what a certificate may be used for.
type Uses struct {
	Key      x509.KeyUsage
	Extended []x509.ExtKeyUsage
	// Lifetime as in Leaf.
	Lifetime time.Duration
}

// SignRequest returns a PEM certificate with the subject, names and key of a request, which the caller has approved.
func (a *Authority) SignRequest(r *x509.CertificateRequest, u Uses) ([]byte, error) {
	der, err := a.create(&x509.Certificate{
		Subject: r.Subject, RawSubject: r.RawSubject, DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, EmailAddresses: r.EmailAddresses, URIs: r.URIs,
		KeyUsage: u.Key, ExtKeyUsage: u.Extended,
	}, r.PublicKey, u.Lifetime)
	if err != nil {
		return nil, err
	}
	return encodeCert(der), nil
}

// create fills in serial number and validity, and signs.
func (a *Authority) create(tmpl *x509.Certificate, pub crypto.PublicKey, life time.Duration) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	if life == 0 {
		life = LeafLifetime
	}
	now := time.Now()
	end := now.Add(life)
	if end.After(a.Cert.NotAfter) {
		end = a.Cert.NotAfter
	}
	tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter, tmpl.BasicConstraintsValid = serial, now.Add(-backdate), end, true
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.Cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %q: %w", tmpl.Subject.CommonName, err)
	}
	return der, nil
}

func openAuthority(dir, file, name string) (*Authority, error) {
	certPath, keyPath := filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key")
	key, err := openKey(keyPath)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(certPath)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = selfSigned(key, name); err == nil {
			err = writeFile(certPath, b, 0o644)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate of authority %s: %w", certPath, err)
	}
	cert, err := parseCert(b)
	if err != nil {
		return nil, fmt.Errorf("certificate of authority %s: %w", certPath, err)
	}
	if pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("%s does not belong to %s; restore the pair from a backup", certPath, keyPath)
	}
	return &Authority{Cert: cert, PEM: b, key: key}, nil
}

func selfSigned(key *ecdsa.PrivateKey, name string) ([]byte, error) {
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return encodeCert(der), nil
}

func openKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		b, err := encodeKey(key)
		if err != nil {
			return nil, err
		}
		return key, writeFile(path, b, 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("private key %s: no PEM block", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", path, err)
	}
	return key, nil
}

func parseCert(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// writeFile makes path appear whole or not at all: half a key would cost the cluster its identity.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
