// Package certificates handles CertificateSigningRequests: it approves those of kubelets whose requester may have them,
// signs what is approved for the cluster's own signers, and removes old ones, those of pods' certificates too.
//
// plan.go is pure: a request in, one decision out. The authority that signs is the caller's.
package certificates

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/controller"
)

// refused is when a requester that may not have its certificate is asked about again: rights change without an event here.
const refused = time.Minute

// Order says how a certificate is to be made.
type Order struct {
	Key      x509.KeyUsage
	Extended []x509.ExtKeyUsage
	// Lifetime; 0: as long as the authority usually signs for. It never signs for longer.
	Lifetime time.Duration
}

// Sign makes a PEM certificate from an approved request.
type Sign func(*x509.CertificateRequest, Order) ([]byte, error)

type keeper struct {
	controller.Deps
	sign Sign
}

// New returns the controller; keys are requests.
func New(d controller.Deps, sign Sign) (*controller.Loop, error) {
	k := &keeper{Deps: d, sign: sign}
	requests := d.Informers.Certificates().V1().CertificateSigningRequests().Informer()
	loop := controller.NewLoop("certificates", d.Log, 1, func(ctx context.Context, key string) (time.Duration, error) {
		if r := controller.Get[csr](requests, key); r != nil {
			return k.reconcile(ctx, r.DeepCopy())
		}
		return 0, nil
	})
	return loop, controller.Watch(loop, requests, func(r, _ *csr) []string { return []string{r.Name} })
}

func (k *keeper) reconcile(ctx context.Context, r *csr) (again time.Duration, err error) {
	parsed, bad := parse(r)
	d := decide(r, parsed, bad, time.Now())
	client := k.Client.CertificatesV1().CertificateSigningRequests()
	switch {
	case d.remove:
		err = client.Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(r.UID))})
	case d.approve != "":
		allowed, err := k.may(ctx, r, d.approve)
		if err != nil || !allowed {
			return min(refused, d.again), err
		}
		message := "Auto approving kubelet client certificate after SubjectAccessReview."
		if d.approve == "selfnodeclient" {
			message = "Auto approving self kubelet client certificate after SubjectAccessReview."
		}
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: message})
		if _, err := client.UpdateApproval(ctx, r.Name, r, metav1.UpdateOptions{}); err != nil {
			return 0, gone(err)
		}
	case d.failed != nil:
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: d.failed.Error()})
		_, err = client.UpdateStatus(ctx, r, metav1.UpdateOptions{})
	case d.sign:
		if r.Status.Certificate, err = k.sign(parsed, order(r)); err != nil {
			return 0, fmt.Errorf("sign request %s: %w", r.Name, err)
		}
		_, err = client.UpdateStatus(ctx, r, metav1.UpdateOptions{})
	}
	return d.again, gone(err)
}

// may asks whether the requester may have a certificate of a kind without a person's approval.
func (k *keeper) may(ctx context.Context, r *csr, kind string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, v := range r.Spec.Extra {
		extra[key] = authorizationv1.ExtraValue(v)
	}
	review, err := k.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: certificatesv1.GroupName, Version: "*", Resource: "certificatesigningrequests", Verb: "create", Subresource: kind},
	}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
