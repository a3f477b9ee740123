package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

// How long a request is kept; upstream's.
const (
	keepDecided = time.Hour
	keepPending = 24 * time.Hour
)

const (
	nodesGroup = "system:nodes"
	nodePrefix = "system:node:"
	// shortest is the least lifetime that is signed, whatever is asked for.
	shortest = 10 * time.Minute
)

type csr = certificatesv1.CertificateSigningRequest

// decision is what is to be done with a request now.
type decision struct {
	remove bool
	// approve is the subresource whose creation the requester must be allowed, for approval without a person.
	approve string
	sign    bool
	// failed says why a request that was approved cannot be signed.
	failed error
	// again is when the request is old enough to be removed.
	again time.Duration
}

// decide looks at a request; parsed is what it asks for, err why that cannot be read.
func decide(r *csr, parsed *x509.CertificateRequest, err error, now time.Time) decision {
	end := expires(r)
	if !now.Before(end) {
		return decision{remove: true}
	}
	d := decision{again: end.Sub(now)}
	switch is := conditions(r); {
	case is[certificatesv1.CertificateDenied] || is[certificatesv1.CertificateFailed] || len(r.Status.Certificate) > 0:
	case is[certificatesv1.CertificateApproved]:
		if check := signers[r.Spec.SignerName]; check != nil {
			if err == nil {
				err = check(r, parsed)
			}
			d.sign, d.failed = err == nil, err
		}
	case err == nil && r.Spec.SignerName == certificatesv1.KubeAPIServerClientKubeletSignerName && kubeletClient(r, parsed) == nil:
		d.approve = "nodeclient"
		if r.Spec.Username == parsed.Subject.CommonName {
			d.approve = "selfnodeclient"
		}
	}
	return d
}

func conditions(r *csr) map[certificatesv1.RequestConditionType]bool {
	out := map[certificatesv1.RequestConditionType]bool{}
	for _, c := range r.Status.Conditions {
		out[c.Type] = c.Status != corev1.ConditionFalse
	}
	return out
}

// expires is when a request has been kept long enough: what is decided and done for an hour, what waits for a day, and
// nothing longer than the certificate that came of it.
func expires(r *csr) time.Time {
	is := conditions(r)
	end := r.CreationTimestamp.Add(keepPending)
	if is[certificatesv1.CertificateDenied] || is[certificatesv1.CertificateFailed] || len(r.Status.Certificate) > 0 {
		end = r.CreationTimestamp.Add(keepDecided)
		for _, c := range r.Status.Conditions {
			if at := c.LastUpdateTime.Add(keepDecided); at.After(end) {
				end = at
			}
		}
	}
	if block, _ := pem.Decode(r.Status.Certificate); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end
}

// parse reads what is asked for.
func parse(r *csr) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(r.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = parsed.CheckSignature()
	}
	return parsed, err
}

// signers are those for which the cluster's own authority signs, with what each demands
// (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers).
var signers = map[string]func(*csr, *x509.CertificateRequest) error{
	certificatesv1.KubeAPIServerClientSignerName:        apiClient,
	certificatesv1.KubeAPIServerClientKubeletSignerName: kubeletClient,
	certificatesv1.KubeletServingSignerName:             kubeletServing,
}

func apiClient(r *csr, _ *x509.CertificateRequest) error {
	return usages(r, certificatesv1.UsageClientAuth)
}

func kubeletClient(r *csr, parsed *x509.CertificateRequest) error {
	switch {
	case len(parsed.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(parsed.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	}
	return errors.Join(node(parsed), exactUsages(r, certificatesv1.UsageClientAuth))
}

func kubeletServing(r *csr, parsed *x509.CertificateRequest) error {
	if len(parsed.DNSNames)+len(parsed.IPAddresses) == 0 {
		return errors.New("DNS or IP subjectAltName is required")
	}
	return errors.Join(node(parsed), exactUsages(r, certificatesv1.UsageServerAuth))
}

// node demands a node's own name.
func node(parsed *x509.CertificateRequest) error {
	switch {
	case !slices.Equal(parsed.Subject.Organization, []string{nodesGroup}):
		return fmt.Errorf("subject organization is not %s", nodesGroup)
	case !strings.HasPrefix(parsed.Subject.CommonName, nodePrefix) || parsed.Subject.CommonName == nodePrefix:
		return fmt.Errorf("subject common name does not begin with %s", nodePrefix)
	case len(parsed.EmailAddresses) > 0:
		return errors.New("email subjectAltNames are not allowed")
	case len(parsed.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	return nil
}

// usages demands one, and allows those that every key needs.
func usages(r *csr, main certificatesv1.KeyUsage) error {
	if !slices.Contains(r.Spec.Usages, main) {
		return fmt.Errorf("usages do not include %q", main)
	}
	for _, u := range r.Spec.Usages {
		if u != main && u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment {
			return fmt.Errorf("usage %q is not allowed for signer %s", u, r.Spec.SignerName)
		}
	}
	return nil
}

// exactUsages also demands digital signature.
func exactUsages(r *csr, main certificatesv1.KeyUsage) error {
	if !slices.Contains(r.Spec.Usages, certificatesv1.UsageDigitalSignature) {
		return fmt.Errorf("usages do not include %q", certificatesv1.UsageDigitalSignature)
	}
	return usages(r, main)
}

// order is what a request that passed its signer's check makes of the authority.
func order(r *csr) Order {
	var o Order
	for _, u := range r.Spec.Usages {
		switch u {
		case certificatesv1.UsageDigitalSignature:
			o.Key |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			o.Key |= x509.KeyUsageKeyEncipherment
		case certificatesv1.UsageClientAuth:
			o.Extended = append(o.Extended, x509.ExtKeyUsageClientAuth)
		case certificatesv1.UsageServerAuth:
			o.Extended = append(o.Extended, x509.ExtKeyUsageServerAuth)
		}
	}
	if s := r.Spec.ExpirationSeconds; s != nil {
		o.Lifetime = max(time.Duration(*s)*time.Second, shortest)
	}
	return o
}
