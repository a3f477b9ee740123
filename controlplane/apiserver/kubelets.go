package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson.dev/keelson/controlplane/auth"
)

// kubelets is the way from the API server to kubelets and pods.
type kubelets struct {
	objects tokenObjects
	port    int
	// kubelet reaches kubelets, which must show a certificate of the cluster's CA and get one in return.
	kubelet *http.Transport
	// unverified reaches kubelets with any certificate, for logs of which the client says that they need not be believed.
	unverified *http.Transport
	// pod reaches whatever listens on an address of a pod or Service, and nothing on this machine itself.
	pod *http.Transport
}

func newKubelets(pki *auth.PKI, objects tokenObjects, port int) (*kubelets, error) {
	pair, err := pki.CA.Issue(auth.Leaf{CommonName: "kube-apiserver-kubelet-client", Organizations: []string{"system:masters"}, Client: true})
	if err != nil {
		return nil, fmt.Errorf("certificate for kubelets: %w", err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate for kubelets: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pki.CA.Cert)
	kubelet := &http.Transport{
		DialContext:     (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		// Streams upgrade the connection, which HTTP/2 cannot.
		ForceAttemptHTTP2: false, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
	}
	unverified := kubelet.Clone()
	unverified.TLSClientConfig.InsecureSkipVerify = true
	return &kubelets{
		objects: objects, port: port, kubelet: kubelet, unverified: unverified,
		pod: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: refuseLocal}).DialContext,
			// Who speaks TLS in a pod has a certificate that only its own clients can judge.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as upstream: the proxy authenticates to nothing here
			// A pooled connection of one user must not carry another's.
			DisableKeepAlives: true,
		},
	}, nil
}

var errLocal = errors.New("address is not allowed: it is this machine's, or not a pod's")

// refuseLocal stops a proxied connection to the server's own machine or link (CVE-2020-8555). It looks at the address
// that is dialled, after every name is resolved, so a name that resolves differently the second time does not help.
func refuseLocal(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("proxy to %s: %w", address, err)
	}
	if a := ap.Addr().Unmap(); !a.IsGlobalUnicast() {
		return fmt.Errorf("proxy to %s: %w", address, errLocal)
	}
	return nil
}

// at returns where the kubelet of a node listens.
func (k *kubelets) at(ctx context.Context, node string) (*url.URL, error) {
	n, err := k.objects.Node(ctx, node, false)
	if err != nil {
		return nil, err
	}
	host := nodeAddress(n)
	if host == "" {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("node %s has no address", node))
	}
	port := k.port
	if p := n.Status.DaemonEndpoints.KubeletEndpoint.Port; p != 0 {
		port = int(p)
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(port))}, nil
}

// speaksWebSocket tells whether a node's kubelet takes WebSockets for what is done in pods.
func (k *kubelets) speaksWebSocket(ctx context.Context, node string) bool {
	n, err := k.objects.Node(ctx, node, false)
	return err == nil && slices.Contains(n.Status.DeclaredFeatures, "ExtendWebSocketsToKubelet")
}

// nodeAddress prefers addresses over names: names of nodes are often in no DNS.
func nodeAddress(n *corev1.Node) string {
	for _, typ := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeInternalDNS, corev1.NodeHostName, corev1.NodeExternalDNS} {
		for _, a := range n.Status.Addresses {
			if a.Type == typ && a.Address != "" {
				return a.Address
			}
		}
	}
	return ""
}
