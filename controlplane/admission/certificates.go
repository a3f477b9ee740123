package admission

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

var (
	csrs         = schema.GroupResource{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"}
	trustBundles = schema.GroupResource{Group: certificatesv1.GroupName, Resource: "clustertrustbundles"}
)

// maySign says whether the user holds the verb on the signer, by name or for its whole domain.
func maySign(ctx context.Context, authz authorizer.Authorizer, u user.Info, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, err := authz.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, Name: name, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true,
		})
		if err == nil && decision == authorizer.DecisionAllow {
			return true
		}
	}
	return false
}

// newCertificateApproval lets only those approve a request who may approve for its signer.
func newCertificateApproval(authz authorizer.Authorizer) admission.Interface {
	return validator{admission.NewHandler(admission.Update), func(ctx context.Context, a admission.Attributes) error {
		old, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
		if !ok || a.GetSubresource() != "approval" || a.GetResource().GroupResource() != csrs {
			return nil
		}
		if !maySign(ctx, authz, a.GetUserInfo(), "approve", old.Spec.SignerName) {
			return admission.NewForbidden(a, fmt.Errorf("user not permitted to approve requests with signerName %q", old.Spec.SignerName))
		}
		return nil
	}}
}

// newCertificateSigning lets only those issue a certificate, or say that it failed, who may sign for its signer. Of pods' requests
// upstream's validation says so.
func newCertificateSigning(authz authorizer.Authorizer) admission.Interface {
	return validator{admission.NewHandler(admission.Update), func(ctx context.Context, a admission.Attributes) error {
		if a.GetSubresource() != "status" {
			return nil
		}
		if old, ok := a.GetOldObject().(*certificatesv1.PodCertificateRequest); ok {
			return judgePodIssuance(ctx, authz, a, old)
		}
		old, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
		if !ok {
			return nil
		}
		csr, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
		if !ok {
			return nil
		}
		if bytes.Equal(csr.Status.Certificate, old.Status.Certificate) && equality.Semantic.DeepEqual(csr.Status.Conditions, old.Status.Conditions) {
			return nil
		}
		if !maySign(ctx, authz, a.GetUserInfo(), "sign", old.Spec.SignerName) {
			return admission.NewForbidden(a, fmt.Errorf("user not permitted to sign requests with signerName %q", old.Spec.SignerName))
		}
		return nil
	}}
}

func judgePodIssuance(ctx context.Context, authz authorizer.Authorizer, a admission.Attributes, old *certificatesv1.PodCertificateRequest) error {
	request, ok := a.GetObject().(*certificatesv1.PodCertificateRequest)
	if !ok || equality.Semantic.DeepEqual(request.Status, old.Status) || maySign(ctx, authz, a.GetUserInfo(), "sign", old.Spec.SignerName) {
		return nil
	}
	return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), field.ErrorList{field.Forbidden(field.NewPath("spec", "signerName"),
		fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", a.GetUserInfo().GetName(), old.Spec.SignerName))})
}

// trustBundle is any version of a ClusterTrustBundle; the one that is served first is the internal one.
type trustBundle = certificatesv1.ClusterTrustBundle

// newTrustBundleAttest lets only those publish a signer's roots who may attest for it.
func newTrustBundleAttest(authz authorizer.Authorizer) admission.Interface {
	return validator{admission.NewHandler(admission.Create, admission.Update), func(ctx context.Context, a admission.Attributes) error {
		bundle, ok := object[*trustBundle](a, trustBundles)
		if !ok || bundle.Spec.SignerName == "" {
			return nil
		}
		if old, ok := a.GetOldObject().(*trustBundle); ok && a.GetOperation() == admission.Update && sameBut(old, bundle) {
			return nil
		}
		if !maySign(ctx, authz, a.GetUserInfo(), "attest", bundle.Spec.SignerName) {
			return admission.NewForbidden(a, fmt.Errorf("user not permitted to attest for signerName %q", bundle.Spec.SignerName))
		}
		return nil
	}}
}

// sameBut tells whether nothing changes but what the garbage collector writes, or who is on record as writer.
func sameBut(old, now *trustBundle) bool {
	now = now.DeepCopy()
	now.OwnerReferences, now.Finalizers, now.ManagedFields = old.OwnerReferences, old.Finalizers, old.ManagedFields
	return equality.Semantic.DeepEqual(old, now)
}

// newSubjectRestriction refuses client certificates for the group that is allowed everything.
func newSubjectRestriction() admission.Interface {
	return validator{admission.NewHandler(admission.Create), func(_ context.Context, a admission.Attributes) error {
		csr, ok := object[*certificatesv1.CertificateSigningRequest](a, csrs)
		if !ok || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
			return nil
		}
		request, err := parseRequest(csr.Spec.Request)
		if err != nil {
			return admission.NewForbidden(a, fmt.Errorf("failed to parse CSR: %w", err))
		}
		if slices.Contains(request.Subject.Organization, user.SystemPrivilegedGroup) {
			return admission.NewForbidden(a, fmt.Errorf("use of %s signer with %s group is not allowed",
				certificatesv1.KubeAPIServerClientSignerName, user.SystemPrivilegedGroup))
		}
		return nil
	}}
}

func parseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}
