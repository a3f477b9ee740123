package certificates

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/mail"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

const (
	defaultPodSeconds = 24 * 60 * 60
	minPodSeconds     = 60 * 60
	maxPodSeconds     = 91 * 24 * 60 * 60
	maxUIDLength      = 128
	maxStubBytes      = 10 * 1024
)

type podCertificate = certificatesv1.PodCertificateRequest

func podRequest() resource.Kind {
	doc := certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()
	col := func(name, documented string, value func(*certificatesv1.PodCertificateRequestSpec) string) resource.Column {
		return resource.Col(name, "string", doc[documented], 0, func(r *podCertificate) any { return value(&r.Spec) })
	}
	return resource.Of(resource.Kind{
		Kind: "PodCertificateRequest", Plural: "podcertificaterequests", Namespaced: true, HasStatus: true, NoAge: true,
		ForbidUnconditionalUpdate: true,
		New:                       func() runtime.Object { return &podCertificate{} },
		NewList:                   func() runtime.Object { return &certificatesv1.PodCertificateRequestList{} },
		Columns: []resource.Column{
			cell.Name(),
			col("PodName", "podName", func(s *certificatesv1.PodCertificateRequestSpec) string { return s.PodName }),
			col("ServiceAccountName", "serviceAccountName", func(s *certificatesv1.PodCertificateRequestSpec) string { return s.ServiceAccountName }),
			col("NodeName", "nodeName", func(s *certificatesv1.PodCertificateRequestSpec) string { return string(s.NodeName) }),
			col("SignerName", "signerName", func(s *certificatesv1.PodCertificateRequestSpec) string { return s.SignerName }),
			resource.Col("State", "string", "Is the request Pending, Issued, Denied, or Failed?", 0, func(r *podCertificate) any {
				if c := outcome(r.Status.Conditions); c != nil {
					return c.Type
				}
				return "Pending"
			}),
			col("UnverifiedUserAnnotations", "unverifiedUserAnnotations",
				func(s *certificatesv1.PodCertificateRequestSpec) string {
					return labels.FormatLabels(s.UnverifiedUserAnnotations)
				}),
		},
	}, resource.Rules[*podCertificate]{
		Default: func(r *podCertificate) {
			if r.Spec.MaxExpirationSeconds == nil {
				seconds := int32(defaultPodSeconds)
				r.Spec.MaxExpirationSeconds = &seconds
			}
		},
		Validate: func(_ context.Context, r *podCertificate) field.ErrorList {
			return validatePodRequest(&r.Spec, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, r, old *podCertificate) field.ErrorList {
			if check.Same(r.Spec, old.Spec) {
				return nil
			}
			return field.ErrorList{field.Invalid(field.NewPath("spec"), shown(&r.Spec), apivalidation.FieldImmutableErrorMsg)}
		},
		PrepareStatusUpdate: func(_ context.Context, r, old *podCertificate) {
			metav1.ResetObjectMetaForStatus(&r.ObjectMeta, &old.ObjectMeta)
		},
		ValidateStatusUpdate: func(_ context.Context, r, old *podCertificate) field.ErrorList {
			return validatePodStatus(r, old, time.Now(), field.NewPath("status"))
		},
		Fields: func(r *podCertificate) fields.Set {
			return fields.Set{
				"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.podUID": string(r.Spec.PodUID),
				"spec.serviceAccountName": r.Spec.ServiceAccountName, "spec.serviceAccountUID": string(r.Spec.ServiceAccountUID),
				"spec.nodeName": string(r.Spec.NodeName), "spec.nodeUID": string(r.Spec.NodeUID),
			}
		},
	})
}

// shown is a specification as messages print it: with the fields that this version no longer has.
func shown(s *certificatesv1.PodCertificateRequestSpec) certificatesv1beta1.PodCertificateRequestSpec {
	return certificatesv1beta1.PodCertificateRequestSpec{
		SignerName: s.SignerName, PodName: s.PodName, PodUID: s.PodUID, ServiceAccountName: s.ServiceAccountName, ServiceAccountUID: s.ServiceAccountUID,
		NodeName: s.NodeName, NodeUID: s.NodeUID, MaxExpirationSeconds: s.MaxExpirationSeconds, StubPKCS10Request: s.StubPKCS10Request,
		UnverifiedUserAnnotations: s.UnverifiedUserAnnotations,
	}
}

func outcome(conditions []metav1.Condition) *metav1.Condition {
	for i, c := range conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied,
			certificatesv1.PodCertificateRequestConditionTypeFailed:
			return &conditions[i]
		}
	}
	return nil
}

func validatePodRequest(s *certificatesv1.PodCertificateRequestSpec, path *field.Path) field.ErrorList {
	errs := podspec.ValidateSignerName(s.SignerName, path.Child("signerName"))
	for _, f := range []struct {
		name, value string
		isUID       bool
	}{
		{"podName", s.PodName, false}, {"podUID", string(s.PodUID), true},
		{"serviceAccountName", s.ServiceAccountName, false}, {"serviceAccountUID", string(s.ServiceAccountUID), true},
		{"nodeName", string(s.NodeName), false}, {"nodeUID", string(s.NodeUID), true},
	} {
		at := path.Child(f.name)
		switch {
		case f.isUID && f.value == "":
			errs = append(errs, field.Invalid(at, f.value, "must not be empty"))
		case f.isUID && len(f.value) > maxUIDLength:
			errs = append(errs, field.TooLong(at, f.value, maxUIDLength))
		case !f.isUID:
			errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(f.value, false), at, f.value)...)
		}
	}
	seconds, most := path.Child("maxExpirationSeconds"), int32(maxPodSeconds)
	if domain, _, _ := strings.Cut(s.SignerName, "/"); domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") {
		most = defaultPodSeconds // the project's own signers issue for a day at most
	}
	switch m := s.MaxExpirationSeconds; {
	case m == nil:
		errs = append(errs, field.Required(seconds, "must be set"))
	case *m < minPodSeconds || *m > most:
		errs = append(errs, field.Invalid(seconds, *m, fmt.Sprintf("must be in the range [%d, %d]", minPodSeconds, most)))
	}
	errs = append(errs, podspec.ValidateUserAnnotations(s.UnverifiedUserAnnotations, path.Child("unverifiedUserAnnotations"))...)
	if len(s.StubPKCS10Request) == 0 {
		return append(errs, field.Invalid(path, field.OmitValueType{}, "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"))
	}
	return append(errs, validateStub(s.StubPKCS10Request, path.Child("stubPKCS10Request"))...)
}

// validateStub checks the request that brings the key.
func validateStub(stub []byte, path *field.Path) field.ErrorList {
	if len(stub) > maxStubBytes {
		return field.ErrorList{field.TooLong(path, "", maxStubBytes)}
	}
	r, err := x509.ParseCertificateRequest(stub)
	if err != nil {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "must be a valid PKCS#10 CSR")}
	}
	if errs := validateKey(r.PublicKey, path); len(errs) > 0 {
		return errs
	}
	if r.CheckSignature() != nil { // which proves that who asks holds the key
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "invalid signature")}
	}
	return nil
}

// validateKey: weaker keys, and kinds that no signer knows, are not asked for.
func validateKey(key any, path *field.Path) field.ErrorList {
	switch k := key.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return field.ErrorList{field.Invalid(path, "curve "+k.Curve.Params().Name, "elliptic public keys must use curve P256, P384, or P521")}
		}
	case *rsa.PublicKey:
		if n := k.Size() * 8; n != 3072 && n != 4096 {
			return field.ErrorList{field.Invalid(path, fmt.Sprintf("%d-bit modulus", n), "RSA keys must have modulus size 3072 or 4096")}
		}
	default:
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")}
	}
	return nil
}

// validatePodStatus: a request has one outcome, and keeps it; until it has one there is nothing to say.
func validatePodStatus(r, old *podCertificate, now time.Time, path *field.Path) field.ErrorList {
	conditions := path.Child("conditions")
	var errs field.ErrorList
	n := 0
	for i, c := range r.Status.Conditions {
		at := conditions.Child(fmt.Sprintf("[%d]", i)) // upstream's path
		if outcome(r.Status.Conditions[i:i+1]) == nil {
			errs = append(errs, field.NotSupported(at.Child("type"), c.Type, []string{certificatesv1.PodCertificateRequestConditionTypeIssued,
				certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed}))
			continue
		}
		if n++; n > 1 {
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
		}
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
	}
	if errs = append(errs, metavalidation.ValidateConditions(r.Status.Conditions, conditions)...); len(errs) > 0 {
		return errs
	}
	same := func(want certificatesv1.PodCertificateRequestStatus, detail string) field.ErrorList {
		if check.Same(r.Status, want) {
			return nil
		}
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, detail)}
	}
	switch c := outcome(r.Status.Conditions); {
	case outcome(old.Status.Conditions) != nil:
		return same(old.Status, "immutable after PodCertificateRequest is issued, denied, or failed")
	case c == nil:
		return same(old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`)
	case c.Type != certificatesv1.PodCertificateRequestConditionTypeIssued:
		return same(certificatesv1.PodCertificateRequestStatus{Conditions: r.Status.Conditions},
			"non-condition status fields must be empty when denying or failing the PodCertificateRequest")
	}
	return validateIssued(r, now, path)
}

const (
	maxChainBytes = 100 * 1024
	issuedSkew    = 5 * time.Minute  // between the certificate's beginning and now
	refreshMargin = 10 * time.Minute // of the refresh to both ends of the certificate's life
)

// validateIssued: the certificate is for the key that was asked for and lives no longer than that, and what is said beside it is so.
func validateIssued(r *podCertificate, now time.Time, path *field.Path) field.ErrorList {
	s, chain := &r.Status, path.Child("certificateChain")
	bad := func(p *field.Path, value any, detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(p, value, detail)}
	}
	if len(s.CertificateChain) > maxChainBytes {
		return field.ErrorList{field.TooLong(chain, "", maxChainBytes)}
	}
	leaf, rest, detail := parseLeaf([]byte(s.CertificateChain))
	if detail != "" {
		return bad(chain, s.CertificateChain, detail)
	}
	errs := validateNames(leaf, chain)
	if stub, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request); err == nil {
		if key, ok := stub.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(leaf.PublicKey) {
			return append(errs, field.Invalid(chain, s.CertificateChain, "leaf certificate was not issued to the requested public key"))
		}
	}
	for _, t := range []struct {
		name, detail string
		at           *metav1.Time
	}{
		{"notBefore", "must be present and consistent with the issued certificate", s.NotBefore},
		{"notAfter", "must be present and consistent with the issued certificate", s.NotAfter},
		{"beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]", s.BeginRefreshAt},
	} {
		if t.at == nil {
			errs = append(errs, field.Required(path.Child(t.name), t.detail))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	begin, end, refresh, life := s.NotBefore.Time, s.NotAfter.Time, s.BeginRefreshAt.Time, leaf.NotAfter.Sub(leaf.NotBefore)
	switch {
	case !begin.Equal(leaf.NotBefore):
		return bad(path.Child("notBefore"), begin, "must be set to the NotBefore time encoded in the leaf certificate")
	case now.Sub(begin).Abs() >= issuedSkew:
		return bad(path.Child("notBefore"), begin, "must be set to within 5 minutes of kube-apiserver's current time")
	case !end.Equal(leaf.NotAfter):
		return bad(path.Child("notAfter"), end, "must be set to the NotAfter time encoded in the leaf certificate")
	case life < minPodSeconds*time.Second:
		return bad(chain, life, "leaf certificate lifetime must be >= 1 hour")
	case r.Spec.MaxExpirationSeconds != nil && life > time.Duration(*r.Spec.MaxExpirationSeconds)*time.Second:
		return bad(chain, life, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%d)", *r.Spec.MaxExpirationSeconds))
	case refresh.Before(begin.Add(refreshMargin)):
		return bad(path.Child("beginRefreshAt"), refresh, "must be at least 10 minutes after status.notBefore")
	case refresh.After(end.Add(-refreshMargin)):
		return bad(path.Child("beginRefreshAt"), refresh, "must be at least 10 minutes before status.notAfter")
	}
	if detail := checkIntermediates(rest); detail != "" {
		return bad(chain, s.CertificateChain, detail)
	}
	return nil
}

// parseLeaf returns the first certificate of a chain and what follows it, or what is wrong with it.
func parseLeaf(chain []byte) (leaf *x509.Certificate, rest []byte, detail string) {
	block, rest := pem.Decode(chain)
	switch {
	case block == nil:
		return nil, nil, "issued certificate chain must contain at least one certificate"
	case block.Type != "CERTIFICATE":
		return nil, nil, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks"
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, "leaf certificate does not parse as valid X.509"
	}
	return leaf, rest, ""
}

// validateNames: what a certificate is for can be compared with what a client asks.
func validateNames(leaf *x509.Certificate, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range leaf.DNSNames {
		if name == "" {
			errs = append(errs, field.Invalid(path, name, "leaf certificate should not contain empty DNSName"))
		}
		if strings.Contains(name, "..") {
			errs = append(errs, field.Invalid(path, name, "leaf certificate's DNSName should not contain '..'"))
		}
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
			errs = append(errs, field.Invalid(path, name, "leaf certificate's DNSName should not start or end with '.'"))
		}
	}
	for _, address := range leaf.EmailAddresses {
		if _, err := mail.ParseAddress(address); err != nil {
			errs = append(errs, field.Invalid(path, address, "leaf certificate should not contain invalid EmailAddress"))
		}
	}
	return errs
}

// checkIntermediates says what is wrong with the certificates that follow the first. That they lead to a root cannot be
// known here.
func checkIntermediates(chain []byte) string {
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return "issued certificate chain must consist entirely of CERTFICATE PEM blocks" // upstream's word
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "intermediate certificate does not parse as valid X.509"
		}
	}
	return ""
}
