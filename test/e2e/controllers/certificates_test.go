package controllers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// request makes a key and returns its path and a manifest that asks for a certificate.
func request(t *testing.T, name, signer, user string, groups ...string) (keyFile, manifest string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: user, Organization: groups}}, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile = filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		t.Fatal(err)
	}
	return keyFile, fmt.Sprintf(`apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: %s}
spec: {signerName: kubernetes.io/%s, expirationSeconds: 3600, usages: [digital signature, client auth], request: %s}
`, name, signer, base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
}

// TestCertificate: a person approves a request, and its certificate is who it says.
func TestCertificate(t *testing.T) {
	c := labtest.Cluster(t)
	key, manifest := request(t, "jane", "kube-apiserver-client", "jane", "dev")
	labtest.Apply(t, c, manifest)
	if got := labtest.Kubectl(t, c, "get", "csr", "jane", "-o", "jsonpath={.status}"); strings.Contains(got, "certificate") {
		t.Errorf("not approved, but: %s", got)
	}
	labtest.Kubectl(t, c, "certificate", "approve", "jane")
	var encoded string
	labtest.Eventually(t, "signed", func() string {
		if encoded = labtest.Kubectl(t, c, "get", "csr", "jane", "-o", "jsonpath={.status.certificate}"); encoded == "" {
			return labtest.Kubectl(t, c, "describe", "csr", "jane")
		}
		return ""
	})
	if got := labtest.Kubectl(t, c, "get", "csr", "jane"); !strings.Contains(got, "Approved,Issued") {
		t.Errorf("get csr: %s", got)
	}
	cert, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	certFile := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(certFile, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	labtest.Kubectl(t, c, "create", "rolebinding", "jane", "--clusterrole=view", "--user=jane")
	t.Cleanup(func() { _, _, _ = c.Kubectl(context.Background(), "delete", "rolebinding", "jane") })
	config := filepath.Join(t.TempDir(), "jane.kubeconfig")
	if err := os.WriteFile(config, []byte(labtest.Kubectl(t, c, "config", "view", "--raw", "--minify")), 0o600); err != nil {
		t.Fatal(err)
	}
	labtest.Kubectl(t, c, "--kubeconfig", config, "config", "set-credentials", "jane", "--client-certificate="+certFile, "--client-key="+key)
	as := []string{"--kubeconfig", config, "--user", "jane"}
	if who := labtest.Kubectl(t, c, append(as, "auth", "whoami")...); !strings.Contains(who, "jane") || !strings.Contains(who, "dev") {
		t.Errorf("whoami: %s", who)
	}
	labtest.Eventually(t, "jane may look", func() string {
		out, errs, err := c.Kubectl(t.Context(), append(as, "get", "pods")...)
		if err != nil {
			return out + errs
		}
		return ""
	})
	labtest.Refused(t, c, "", append(as, "get", "nodes")...)
}

// TestKubeletCertificate: a node's own certificate needs nobody if its requester may have it; what breaks the signer's
// rules fails, approved or not.
func TestKubeletCertificate(t *testing.T) {
	c := labtest.Cluster(t)
	const binding = "kubelet-certificate-test"
	labtest.Apply(t, c, `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: `+binding+`}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:masters"}]
`)
	_, node := request(t, "node", "kube-apiserver-client-kubelet", "system:node:new", "system:nodes")
	_, wrong := request(t, "wrong", "kube-apiserver-client-kubelet", "new", "system:nodes")
	labtest.Apply(t, c, node)
	labtest.Apply(t, c, wrong)
	condition := func(name, want string) {
		t.Helper()
		labtest.Eventually(t, name, func() string {
			if got := labtest.Kubectl(t, c, "get", "csr", name); !strings.Contains(got, want) {
				return got
			}
			return ""
		})
	}
	condition("node", "Approved,Issued")
	condition("wrong", "Pending")
	labtest.Kubectl(t, c, "certificate", "approve", "wrong")
	condition("wrong", "Approved,Failed")
}
