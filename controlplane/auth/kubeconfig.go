package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// renewBefore is how long before its end a kubeconfig's certificate is replaced when its file is written again.
const renewBefore = 60 * 24 * time.Hour

// Kubeconfig returns a kubeconfig for server with the identity of l.
func (p *PKI) Kubeconfig(server string, l Leaf) (*clientcmdapi.Config, error) {
	l.Client = true
	pair, err := p.CA.Issue(l)
	if err != nil {
		return nil, err
	}
	const name = "default"
	c := clientcmdapi.NewConfig()
	c.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: p.CA.PEM}
	c.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.Cert, ClientKeyData: pair.Key}
	c.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	c.CurrentContext = name
	return c, nil
}

// WriteKubeconfig writes a kubeconfig (0600) for server with the identity of l. A file that already serves is left
// alone, so that copies of it and open sessions stay valid.
func (p *PKI) WriteKubeconfig(path, server string, l Leaf) error {
	if p.serves(path, server, l) {
		return nil
	}
	c, err := p.Kubeconfig(server, l)
	if err != nil {
		return fmt.Errorf("make kubeconfig %s: %w", path, err)
	}
	b, err := clientcmd.Write(*c)
	if err != nil {
		return fmt.Errorf("make kubeconfig %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory of kubeconfig: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace kubeconfig: %w", err)
	}
	if err := writeFile(path, b, 0o600); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

func (p *PKI) serves(path, server string, l Leaf) bool {
	c, err := clientcmd.LoadFromFile(path)
	if err != nil || c.Contexts[c.CurrentContext] == nil {
		return false
	}
	ctx := c.Contexts[c.CurrentContext]
	cluster, info := c.Clusters[ctx.Cluster], c.AuthInfos[ctx.AuthInfo]
	if cluster == nil || info == nil || cluster.Server != server || !bytes.Equal(cluster.CertificateAuthorityData, p.CA.PEM) {
		return false
	}
	cert, err := parseCert(info.ClientCertificateData)
	return err == nil && cert.CheckSignatureFrom(p.CA.Cert) == nil &&
		cert.Subject.CommonName == l.CommonName && time.Until(cert.NotAfter) > renewBefore
}
