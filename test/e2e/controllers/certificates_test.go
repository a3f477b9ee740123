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
	"net"
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

// TestHostile_AP25: a node asks for certificates of its own name only; it gets one for clients, while one to serve with waits for a person.
// What breaks the signer's rules is not signed even if a person approves it.
func TestHostile_AP25(t *testing.T) {
	c := labtest.Cluster(t)
	const client, serving, mallory = "kube-apiserver-client-kubelet", "kubelet-serving", "system:node:mallory"
	ask := func(name, signer, user string, edit func(*x509.CertificateRequest)) (string, error) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		request := &x509.CertificateRequest{Subject: pkix.Name{CommonName: user, Organization: []string{"system:nodes"}}}
		if edit != nil {
			edit(request)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, request, key)
		if err != nil {
			t.Fatal(err)
		}
		use := map[string]string{client: "client auth", serving: "server auth"}[signer]
		file := filepath.Join(t.TempDir(), "csr.yaml")
		manifest := fmt.Sprintf("apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {name: %s}\nspec: {signerName: kubernetes.io/%s, usages: [digital signature, %s], request: %s}\n",
			name, signer, use, base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
		if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, err := c.Kubectl(t.Context(), "create", "-f", file, "--as", mallory, "--as-group", "system:nodes", "--as-group", "system:authenticated")
		return stderr, err
	}
	// Who lets nodes renew by themselves binds this role, as kubeadm does.
	labtest.Kubectl(t, c, "create", "clusterrolebinding", "ap25", "--clusterrole=system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "--group=system:nodes")
	address := func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }
	for name, r := range map[string]struct{ signer, user string }{
		"another node": {client, "system:node:victim"}, "an administrator": {client, "kubernetes-admin"}, "another node's server": {serving, "system:node:victim"},
	} {
		if out, err := ask("ap25-refused", r.signer, r.user, address); err == nil || !strings.Contains(out, "Forbidden") {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
	for name, r := range map[string]struct {
		signer string
		edit   func(*x509.CertificateRequest)
	}{
		"ap25-names": {client, func(r *x509.CertificateRequest) { r.DNSNames = []string{"kubernetes.default.svc"} }}, "ap25-address": {client, address}, "ap25-serving": {serving, address},
	} {
		if out, err := ask(name, r.signer, mallory, r.edit); err != nil {
			t.Fatalf("%s: %s, %v", name, out, err)
		}
	}
	if out, err := ask("ap25-own", client, mallory, nil); err != nil {
		t.Fatal(out, err)
	}
	status := func(name string) string {
		return labtest.Kubectl(t, c, "get", "csr", name, "-o", "jsonpath={.status.conditions[*].type} {.status.certificate}")
	}
	// Requests are handled in their order: when the last has its certificate, the others were looked at.
	labtest.Eventually(t, "its own name is signed", func() string {
		if got := status("ap25-own"); !strings.HasPrefix(got, "Approved ") || len(got) < 100 {
			return got
		}
		return ""
	})
	for _, name := range []string{"ap25-names", "ap25-address", "ap25-serving"} {
		if got := strings.TrimSpace(status(name)); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, name := range []string{"ap25-names", "ap25-address"} {
		labtest.Kubectl(t, c, "certificate", "approve", name)
		labtest.Eventually(t, name+" fails", func() string {
			if got := strings.TrimSpace(status(name)); got != "Approved Failed" {
				return got
			}
			return ""
		})
	}
}
