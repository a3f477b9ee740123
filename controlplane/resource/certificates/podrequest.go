package certificates

import (
	"context"
	"crypto/x509"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
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
			return check.Immutable(r.Spec, old.Spec, field.NewPath("spec"))
		},
		ValidateStatusUpdate: func(_ context.Context, r, old *podCertificate) field.ErrorList {
			return validatePodStatus(r, old, field.NewPath("status"))
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
			errs = append(errs, field.Required(at, "must not be empty"))
		case f.isUID && len(f.value) > maxUIDLength:
			errs = append(errs, field.TooLong(at, f.value, maxUIDLength))
		case !f.isUID:
			errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(f.value, false), at, f.value)...)
		}
	}
	seconds := path.Child("maxExpirationSeconds")
	switch m := s.MaxExpirationSeconds; {
	case m == nil:
		errs = append(errs, field.Required(seconds, "must be set"))
	case *m < minPodSeconds:
		errs = append(errs, field.Invalid(seconds, *m, fmt.Sprintf("must be at least %d", minPodSeconds)))
	case *m > maxPodSeconds:
		errs = append(errs, field.Invalid(seconds, *m, fmt.Sprintf("must be no more than %d", maxPodSeconds)))
	}
	stub := path.Child("stubPKCS10Request")
	r, err := x509.ParseCertificateRequest(s.StubPKCS10Request)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		// The signature proves that who asks holds the key.
		errs = append(errs, field.Invalid(stub, field.OmitValueType{}, err.Error()))
	}
	return errs
}

// validatePodStatus: a request has one outcome, and keeps it.
func validatePodStatus(r, old *podCertificate, path *field.Path) field.ErrorList {
	conditions := path.Child("conditions")
	errs := metavalidation.ValidateConditions(r.Status.Conditions, conditions)
	n := 0
	for i, c := range r.Status.Conditions {
		at := conditions.Index(i)
		if outcome(r.Status.Conditions[i:i+1]) == nil {
			errs = append(errs, field.NotSupported(at.Child("type"), c.Type, []string{
				certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed,
				certificatesv1.PodCertificateRequestConditionTypeIssued}))
			continue
		}
		n++
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
	}
	if n > 1 {
		errs = append(errs, field.Invalid(conditions, r.Status.Conditions, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
	}
	if outcome(old.Status.Conditions) != nil {
		return append(errs, check.Immutable(r.Status, old.Status, path)...)
	}
	c := outcome(r.Status.Conditions)
	if c == nil || c.Type != certificatesv1.PodCertificateRequestConditionTypeIssued {
		if r.Status.CertificateChain != "" {
			errs = append(errs, field.Invalid(path.Child("certificateChain"), "<certificate data>", "must be empty unless the request is issued"))
		}
		return errs
	}
	if err := validateChain([]byte(r.Status.CertificateChain)); err != nil {
		errs = append(errs, field.Invalid(path.Child("certificateChain"), "<certificate data>", err.Error()))
	}
	for name, t := range map[string]*metav1.Time{"notBefore": r.Status.NotBefore, "beginRefreshAt": r.Status.BeginRefreshAt, "notAfter": r.Status.NotAfter} {
		if t == nil {
			errs = append(errs, field.Required(path.Child(name), "must be present and consistent with the issued certificate"))
		}
	}
	return errs
}
