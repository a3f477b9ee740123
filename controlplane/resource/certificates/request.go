package certificates

import (
	"context"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
)

// csr is short for the type's long name.
type csr = certificatesv1.CertificateSigningRequest

func signingRequest() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "CertificateSigningRequest", Plural: "certificatesigningrequests", ShortNames: []string{"csr"},
		HasStatus: true, NoAge: true,
		// The name is the requester's affair: any that can be stored will do.
		ValidateName: func(string, bool) []string { return nil },
		New:          func() runtime.Object { return &csr{} },
		NewList:      func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },
		Columns:      requestColumns(),
		Install: func(_ resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
			return map[string]rest.Storage{"approval": newApproval(store)}, nil
		},
	}, resource.Rules[*csr]{
		PrepareForCreate: func(ctx context.Context, r *csr) { setRequester(ctx, &r.Spec) },
		PrepareForUpdate: func(_ context.Context, r, old *csr) { r.Spec = old.Spec },
		Validate: func(_ context.Context, r *csr) field.ErrorList {
			return validateRequest(r, strict)
		},
		ValidateUpdate: func(_ context.Context, r, old *csr) field.ErrorList {
			return append(validateRequest(r, leniencyFor(r, old)), validateChange(r, old, mayChange{})...)
		},
		PrepareStatusUpdate: func(_ context.Context, r, old *csr) {
			keepDecisions(&r.Status, &old.Status)
			stampConditions(&r.Status, &old.Status, metav1.Now())
		},
		ValidateStatusUpdate: func(_ context.Context, r, old *csr) field.ErrorList {
			return append(validateRequest(r, leniencyFor(r, old)), validateChange(r, old, mayChange{certificate: true})...)
		},
		Fields: func(r *csr) fields.Set { return fields.Set{"spec.signerName": r.Spec.SignerName} },
	})
}

// setRequester writes who asks, over whatever the client wrote there.
func setRequester(ctx context.Context, s *certificatesv1.CertificateSigningRequestSpec) {
	s.Username, s.UID, s.Groups, s.Extra = "", "", nil, nil
	u, ok := request.UserFrom(ctx)
	if !ok {
		return
	}
	s.Username, s.UID, s.Groups = u.GetName(), u.GetUID(), u.GetGroups()
	if extra := u.GetExtra(); len(extra) > 0 {
		s.Extra = map[string]certificatesv1.ExtraValue{}
		for k, v := range extra {
			s.Extra[k] = v
		}
	}
}

// keepDecisions writes approvals and denials as they were over what a signer sends back of them. If their number has
// changed, validation says so.
func keepDecisions(s, old *certificatesv1.CertificateSigningRequestStatus) {
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied} {
		is := func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t }
		now, was := slices.IndexFunc(s.Conditions, is), slices.IndexFunc(old.Conditions, is)
		if now >= 0 && was >= 0 {
			s.Conditions[now] = old.Conditions[was]
		}
	}
}

// stampConditions fills in when conditions were first seen and last changed.
func stampConditions(s, old *certificatesv1.CertificateSigningRequestStatus, now metav1.Time) {
	was := map[certificatesv1.RequestConditionType]*certificatesv1.CertificateSigningRequestCondition{}
	for i := range old.Conditions {
		was[old.Conditions[i].Type] = &old.Conditions[i]
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if c.LastTransitionTime.IsZero() {
			c.LastTransitionTime = now
			if o := was[c.Type]; o != nil && o.Status == c.Status && !o.LastTransitionTime.IsZero() {
				c.LastTransitionTime = o.LastTransitionTime
			}
		}
	}
}

func requestColumns() []resource.Column {
	doc := certificatesv1beta1.CertificateSigningRequestSpec{}.SwaggerDoc() // columns are described in the words of old
	return []resource.Column{
		cell.Name(),
		cell.Age(),
		resource.Col("SignerName", "string", doc["signerName"], 0, func(r *csr) any { return orNone(r.Spec.SignerName) }),
		resource.Col("Requestor", "string", doc["request"], 0, func(r *csr) any { return r.Spec.Username }),
		resource.Col("RequestedDuration", "string", doc["expirationSeconds"], 0, func(r *csr) any {
			if r.Spec.ExpirationSeconds == nil {
				return "<none>"
			}
			return duration.HumanDuration(time.Duration(*r.Spec.ExpirationSeconds) * time.Second)
		}),
		resource.Col("Condition", "string", certificatesv1beta1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"], 0,
			func(r *csr) any { return requestState(r) }),
	}
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func requestState(r *csr) string {
	has := map[certificatesv1.RequestConditionType]bool{}
	for _, c := range r.Status.Conditions {
		has[c.Type] = true
	}
	state := []string{"Pending"}
	switch {
	case has[certificatesv1.CertificateDenied]:
		state[0] = "Denied"
	case has[certificatesv1.CertificateApproved]:
		state[0] = "Approved"
	}
	if has[certificatesv1.CertificateFailed] {
		state = append(state, "Failed")
	}
	if len(r.Status.Certificate) > 0 {
		state = append(state, "Issued")
	}
	return strings.Join(state, ",")
}
