package authentication

import (
	"context"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
)

// Authenticator tells who a request is from.
type Authenticator interface {
	AuthenticateRequest(*http.Request) (*authenticator.Response, bool, error)
}

// Group is authentication.k8s.io over an authenticator, which is asked per request.
func Group(who func() Authenticator, audiences authenticator.Audiences) resource.Group {
	return resource.Group{
		Name: authenticationv1.GroupName, Versions: []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{authenticationv1.AddToScheme},
		Kinds: []resource.Kind{
			{
				Kind: "TokenReview", Plural: "tokenreviews", New: func() runtime.Object { return &authenticationv1.TokenReview{} },
				Storage: func(resource.Deps) (rest.Storage, error) {
					return tokenReview{who: who, audiences: audiences}, nil
				},
			},
			{
				Kind: "SelfSubjectReview", Plural: "selfsubjectreviews", New: func() runtime.Object { return &authenticationv1.SelfSubjectReview{} },
				Storage: func(resource.Deps) (rest.Storage, error) { return selfReview{}, nil },
			},
			tokenRequestType(),
		},
	}
}

// tokenRequestType registers TokenRequest, which is served as a subresource of service accounts only.
func tokenRequestType() resource.Kind {
	return resource.Kind{
		Kind: "TokenRequest", Versions: []string{}, New: func() runtime.Object { return &authenticationv1.TokenRequest{} },
		Default: func(o runtime.Object) {
			if r := o.(*authenticationv1.TokenRequest); r.Spec.ExpirationSeconds == nil {
				hour := int64(3600)
				r.Spec.ExpirationSeconds = &hour
			}
		},
	}
}

type tokenReview struct {
	who       func() Authenticator
	audiences authenticator.Audiences
}

var (
	_ rest.Creater              = tokenReview{}
	_ rest.Scoper               = tokenReview{}
	_ rest.SingularNameProvider = tokenReview{}
)

func (tokenReview) New() runtime.Object     { return &authenticationv1.TokenReview{} }
func (tokenReview) Destroy()                {}
func (tokenReview) NamespaceScoped() bool   { return false }
func (tokenReview) GetSingularName() string { return "tokenreview" }

// Create answers whose the token is. A token that is nobody's is an answer, not an error.
func (t tokenReview) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	review, ok := obj.(*authenticationv1.TokenReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenReview: %T", obj))
	}
	if len(review.Namespace) != 0 {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace is not allowed on this type: %v", review.Namespace))
	}
	if review.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	audiences := authenticator.Audiences(review.Spec.Audiences)
	if len(audiences) == 0 {
		audiences = t.audiences
	}
	// A context of its own: the reviewer's identity in the request's must not answer for the token.
	req := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + review.Spec.Token}}}).
		WithContext(authenticator.WithAudiences(context.Background(), audiences))
	resp, ok, err := t.who().AuthenticateRequest(req)
	review.Status = authenticationv1.TokenReviewStatus{Authenticated: ok && err == nil, Audiences: review.Status.Audiences}
	if err != nil {
		review.Status.Error = err.Error()
	}
	if review.Status.Authenticated {
		review.Status.User = userInfo(resp.User)
		review.Status.Audiences = resp.Audiences
	}
	return review, nil
}

type selfReview struct{}

var _ rest.Creater = selfReview{}

func (selfReview) New() runtime.Object     { return &authenticationv1.SelfSubjectReview{} }
func (selfReview) Destroy()                {}
func (selfReview) NamespaceScoped() bool   { return false }
func (selfReview) GetSingularName() string { return "selfsubjectreview" }

// Create answers who the request is from.
func (selfReview) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	u, ok := apirequest.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user found in context")
	}
	review := &authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(u)}}
	review.CreationTimestamp = metav1.Now()
	return review, nil
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}
