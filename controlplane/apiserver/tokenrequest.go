package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"time"

	restful "github.com/emicklei/go-restful/v3"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/go-jose/go-jose/v4/jwt"

	"keelson.dev/keelson/controlplane/auth"
)

const (
	minTokenSeconds = 10 * 60
	maxTokenSeconds = 1 << 32
	// projectedSeconds is the odd lifetime that the admission of pods asks for; it marks tokens whose readers may not
	// know yet that tokens end. Those are extended, and using one late is only worth a warning (KEP-1205).
	projectedSeconds = 3607
	extendedSeconds  = 365 * 24 * 60 * 60
)

var tokenRequestKind = authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")

// tokenRequest serves serviceaccounts/token.
type tokenRequest struct {
	tokens  *auth.Tokens
	objects auth.Objects
}

var (
	_ rest.NamedCreater             = tokenRequest{}
	_ rest.GroupVersionKindProvider = tokenRequest{}

	_ rest.SubresourceObjectMetaPreserver = tokenRequest{}
)

func (tokenRequest) New() runtime.Object { return &authenticationv1.TokenRequest{} }
func (tokenRequest) Destroy()            {}
func (tokenRequest) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return tokenRequestKind
}

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate: the UID that a client sends is the service account's.
func (tokenRequest) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// Create issues a token for the service account.
func (t tokenRequest) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, o *metav1.CreateOptions) (runtime.Object, error) {
	req, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenRequest: %T", obj))
	}
	out := req.DeepCopy()
	namespace := apirequest.NamespaceValue(ctx)
	if errs := validateTokenName(out, namespace, name); len(errs) > 0 {
		return nil, apierrors.NewInvalid(tokenRequestKind.GroupKind(), name, errs)
	}
	sa, err := t.objects.ServiceAccount(ctx, namespace, name, true)
	if err != nil {
		return nil, err
	}
	if err := fillTokenRequest(out, sa, t.tokens.Audiences()); err != nil {
		return nil, err
	}
	if errs := validateTokenRequest(out); len(errs) > 0 {
		return nil, apierrors.NewInvalid(tokenRequestKind.GroupKind(), "", errs)
	}
	if validate != nil {
		if err := validate(ctx, out.DeepCopy()); err != nil {
			return nil, err
		}
	}
	b := auth.Binding{Namespace: namespace, ServiceAccount: auth.Ref{Name: sa.Name, UID: sa.UID}}
	if err := t.bind(ctx, &b, out.Spec.BoundObjectRef); err != nil {
		return nil, err
	}
	now, seconds := out.CreationTimestamp.Time, *out.Spec.ExpirationSeconds
	out.Status.ExpirationTimestamp = metav1.Time{Time: now.Add(time.Duration(seconds) * time.Second)}
	if b.Pod != nil && seconds == projectedSeconds && len(out.Spec.Audiences) == 1 && out.Spec.Audiences[0] == t.tokens.Audiences()[0] {
		b.WarnAfter = jwt.NewNumericDate(out.Status.ExpirationTimestamp.Time)
		seconds = extendedSeconds
	}
	if dryrun.IsDryRun(o.DryRun) {
		return out, nil
	}
	token, id, err := t.tokens.Issue(b, out.Spec.Audiences, time.Duration(seconds)*time.Second, now)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out.Status.Token = token
	audit.AddAuditAnnotation(ctx, serviceaccount.IssuedCredentialIDAuditAnnotationKey, "JTI="+id)
	return out, nil
}

// validateTokenName: what a client says of the service account must be so.
func validateTokenName(r *authenticationv1.TokenRequest, namespace, name string) field.ErrorList {
	meta := field.NewPath("metadata")
	switch {
	case r.Name != "" && r.Name != name:
		return field.ErrorList{field.Invalid(meta.Child("name"), r.Name, "must match the service account name if specified")}
	case r.Namespace != "" && r.Namespace != namespace:
		return field.ErrorList{field.Invalid(meta.Child("namespace"), r.Namespace, "must match the service account namespace if specified")}
	}
	return nil
}

// fillTokenRequest completes a request by what is known of the service account.
func fillTokenRequest(r *authenticationv1.TokenRequest, sa *corev1.ServiceAccount, audiences []string) error {
	if r.UID != "" && r.UID != sa.UID {
		return apierrors.NewConflict(schema.GroupResource{Group: tokenRequestKind.Group, Resource: tokenRequestKind.Kind}, sa.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", r.UID, sa.UID))
	}
	r.Name, r.Namespace, r.UID = sa.Name, sa.Namespace, sa.UID
	r.CreationTimestamp, r.Status = metav1.Now(), authenticationv1.TokenRequestStatus{}
	if len(r.Spec.Audiences) == 0 {
		r.Spec.Audiences = audiences
	}
	return nil
}

func validateTokenRequest(r *authenticationv1.TokenRequest) field.ErrorList {
	path := field.NewPath("spec").Child("expirationSeconds")
	switch s := r.Spec.ExpirationSeconds; {
	case len(r.Spec.Attestations) > 0: // of webhooks, to which tokens cannot be bound
		return field.ErrorList{field.Invalid(field.NewPath("spec", "attestations"), r.Spec.Attestations,
			"attestations may only be specified with a webhook bound object reference")}
	case s == nil:
		return field.ErrorList{field.Required(path, "")}
	case *s < minTokenSeconds:
		return field.ErrorList{field.Invalid(path, *s, "may not specify a duration less than 10 minutes")}
	case *s > maxTokenSeconds:
		return field.ErrorList{field.Invalid(path, *s, "may not specify a duration larger than 2^32 seconds")}
	}
	return nil
}

// bind looks up what the token is to die with.
func (t tokenRequest) bind(ctx context.Context, b *auth.Binding, to *authenticationv1.BoundObjectReference) error {
	if to == nil {
		return nil
	}
	var obj metav1.Object
	var err error
	found := auth.Ref{Name: to.Name}
	switch gvk := schema.FromAPIVersionAndKind(to.APIVersion, to.Kind); {
	case gvk.Group == "" && gvk.Kind == "Pod":
		var pod *corev1.Pod
		if pod, err = t.objects.Pod(ctx, b.Namespace, to.Name, true); err != nil {
			return err
		}
		if pod.Spec.ServiceAccountName != b.ServiceAccount.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", b.ServiceAccount.Name))
		}
		b.Pod, obj = &found, pod
		b.Node = t.nodeOf(ctx, pod)
	case gvk.Group == "" && gvk.Kind == "Node":
		obj, err = t.objects.Node(ctx, to.Name, true)
		b.Node = &found
	case gvk.Group == "" && gvk.Kind == "Secret":
		obj, err = t.objects.Secret(ctx, b.Namespace, to.Name, true)
		b.Secret = &found
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk))
	}
	if err != nil {
		return err
	}
	if to.UID != "" && to.UID != obj.GetUID() {
		return apierrors.NewConflict(schema.GroupResource{Resource: to.Kind}, to.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", to.UID))
	}
	found.UID = obj.GetUID()
	return nil
}

// nodeOf is only information in the token: a pod whose node cannot be read gets one without.
func (t tokenRequest) nodeOf(ctx context.Context, pod *corev1.Pod) *auth.Ref {
	if pod.Spec.NodeName == "" {
		return nil
	}
	out := &auth.Ref{Name: pod.Spec.NodeName}
	if n, err := t.objects.Node(ctx, pod.Spec.NodeName, false); err == nil {
		out.UID = n.UID
	}
	return out
}

// tokenObjects reads what tokens are bound to from the server's own stores.
type tokenObjects struct {
	stores map[schema.GroupResource]*genericregistry.Store
}

func read[T runtime.Object](ctx context.Context, o tokenObjects, resource, namespace, name string, fresh bool) (T, error) {
	var none T
	st := o.stores[corev1.Resource(resource)]
	if st == nil {
		return none, apierrors.NewNotFound(corev1.Resource(resource), name)
	}
	options := &metav1.GetOptions{}
	if !fresh {
		options.ResourceVersion = "0" // the watch cache
	}
	obj, err := st.Get(apirequest.WithNamespace(ctx, namespace), name, options)
	if err != nil {
		return none, err
	}
	return obj.(T), nil
}

func (o tokenObjects) ServiceAccount(ctx context.Context, ns, name string, fresh bool) (*corev1.ServiceAccount, error) {
	return read[*corev1.ServiceAccount](ctx, o, "serviceaccounts", ns, name, fresh)
}

func (o tokenObjects) Pod(ctx context.Context, ns, name string, fresh bool) (*corev1.Pod, error) {
	return read[*corev1.Pod](ctx, o, "pods", ns, name, fresh)
}

func (o tokenObjects) Secret(ctx context.Context, ns, name string, fresh bool) (*corev1.Secret, error) {
	return read[*corev1.Secret](ctx, o, "secrets", ns, name, fresh)
}

func (o tokenObjects) LabelSecret(ctx context.Context, s *corev1.Secret, key, value string) error {
	change := func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		next := old.DeepCopyObject().(*corev1.Secret)
		if next.Labels == nil {
			next.Labels = map[string]string{}
		}
		next.Labels[key] = value
		return next, nil
	}
	_, _, err := o.stores[corev1.Resource("secrets")].Update(apirequest.WithNamespace(ctx, s.Namespace), s.Name, rest.DefaultUpdatedObjectInfo(nil, change),
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return err
}

func (o tokenObjects) Node(ctx context.Context, name string, fresh bool) (*corev1.Node, error) {
	return read[*corev1.Node](ctx, o, "nodes", "", name, fresh)
}

// publishTokenKeys serves the documents by which others verify the tokens (OpenID discovery).
func (s *Server) publishTokenKeys() error {
	const jwks = "/openid/v1/jwks"
	config, keys, err := s.tokens.Discovery(s.URL() + jwks)
	if err != nil {
		return fmt.Errorf("key set of tokens: %w", err)
	}
	document := func(path, mediaType, operation, doc string, b []byte) {
		ws := new(restful.WebService).Path(path).Produces(mediaType)
		s.generic.Handler.GoRestfulContainer.Add(ws.Route(ws.GET("").Operation(operation).Doc(doc).Returns(http.StatusOK, "OK", "").
			To(func(_ *restful.Request, w *restful.Response) {
				w.Header().Set("Content-Type", mediaType)
				w.Header().Set("Cache-Control", "public, max-age=3600")
				_, _ = w.Write(b)
			})))
	}
	document("/.well-known/openid-configuration", "application/json", "getServiceAccountIssuerOpenIDConfiguration",
		"get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'", config)
	document(jwks, "application/jwk-set+json", "getServiceAccountIssuerOpenIDKeyset",
		"get service account issuer OpenID JSON Web Key Set (contains public token verification keys)", keys)
	return nil
}
