package authorization

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
)

// Deps are what the reviews ask, per request.
type Deps struct {
	Authorizer func() authorizer.Authorizer
	Rules      func() authorizer.RuleResolver
}

// Group is authorization.k8s.io.
func Group(d Deps) resource.Group {
	return resource.Group{
		Name: authorizationv1.GroupName, Versions: []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{authorizationv1.AddToScheme},
		Kinds: []resource.Kind{
			kind("SubjectAccessReview", "subjectaccessreviews", false, &authorizationv1.SubjectAccessReview{}, d.subject),
			kind("LocalSubjectAccessReview", "localsubjectaccessreviews", true, &authorizationv1.LocalSubjectAccessReview{}, d.local),
			kind("SelfSubjectAccessReview", "selfsubjectaccessreviews", false, &authorizationv1.SelfSubjectAccessReview{}, d.self),
			kind("SelfSubjectRulesReview", "selfsubjectrulesreviews", false, &authorizationv1.SelfSubjectRulesReview{}, d.rules),
		},
	}
}

func kind[T runtime.Object](name, plural string, namespaced bool, example T, answer func(context.Context, T) error) resource.Kind {
	fresh := func() runtime.Object { return example.DeepCopyObject() }
	return resource.Kind{
		Kind: name, Plural: plural, Namespaced: namespaced, New: fresh,
		Storage: func(resource.Deps) (rest.Storage, error) {
			return review[T]{fresh: fresh, namespaced: namespaced, singular: plural[:len(plural)-1], answer: answer}, nil
		},
	}
}

// review is a kind that is only created: the answer comes back in its status.
type review[T runtime.Object] struct {
	fresh      func() runtime.Object
	namespaced bool
	singular   string
	answer     func(context.Context, T) error
}

func (r review[T]) New() runtime.Object     { return r.fresh() }
func (r review[T]) Destroy()                {}
func (r review[T]) NamespaceScoped() bool   { return r.namespaced }
func (r review[T]) GetSingularName() string { return r.singular }

// Create answers the review.
func (r review[T]) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	in, ok := obj.(T)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a %s: %T", r.singular, obj))
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if err := r.answer(ctx, in); err != nil {
		return nil, err
	}
	return in, nil
}

func (d Deps) subject(ctx context.Context, r *authorizationv1.SubjectAccessReview) error {
	if err := invalid(append(validate(r.Spec), validateMeta(r.ObjectMeta, "must be empty")...)); err != nil {
		return err
	}
	r.Status = d.decide(ctx, attributes(spec(r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
	return nil
}

func (d Deps) local(ctx context.Context, r *authorizationv1.LocalSubjectAccessReview) error {
	meta := r.ObjectMeta
	meta.Namespace = ""
	errs := append(validate(r.Spec), validateMeta(meta, "must be empty except for namespace")...)
	ns, _ := apirequest.NamespaceFrom(ctx)
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != ns {
		errs = append(errs, field.Invalid(field.NewPath("spec", "resourceAttributes", "namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if n := r.Spec.NonResourceAttributes; n != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec", "nonResourceAttributes"), check.Shown(n), "disallowed on this kind of request"))
	}
	if err := invalid(errs); err != nil {
		return err
	}
	r.Status = d.decide(ctx, attributes(spec(r.Spec), r.Spec.ResourceAttributes, nil))
	return nil
}

func (d Deps) self(ctx context.Context, r *authorizationv1.SelfSubjectAccessReview) error {
	errs := append(validateUnion(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes), validateSelectors(r.Spec.ResourceAttributes)...)
	if err := invalid(append(errs, validateMeta(r.ObjectMeta, "must be empty")...)); err != nil {
		return err
	}
	u, ok := apirequest.UserFrom(ctx)
	if !ok {
		return apierrors.NewBadRequest("no user present on request")
	}
	r.Status = d.decide(ctx, attributes(u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
	return nil
}

func (d Deps) decide(ctx context.Context, a authorizer.AttributesRecord) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := d.Authorizer().Authorize(ctx, a)
	return authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason,
		EvaluationError: evaluationError(err, a),
	}
}

// evaluationError says what went wrong with the answer, and which selectors of the question it does not answer.
func evaluationError(err error, a authorizer.AttributesRecord) string {
	var out []string
	if err != nil {
		out = append(out, err.Error())
	}
	for _, s := range []struct {
		name string
		read int
		err  error
	}{
		{"fieldSelector", len(a.FieldSelectorRequirements), a.FieldSelectorParsingErr},
		{"labelSelector", len(a.LabelSelectorRequirements), a.LabelSelectorParsingErr},
	} {
		switch {
		case s.err != nil && s.read > 0:
			out = append(out, "spec.resourceAttributes."+s.name+" partially ignored due to parse error")
		case s.err != nil:
			out = append(out, "spec.resourceAttributes."+s.name+" ignored due to parse error")
		}
	}
	return strings.Join(out, "; ")
}

func (d Deps) rules(ctx context.Context, r *authorizationv1.SelfSubjectRulesReview) error {
	u, ok := apirequest.UserFrom(ctx)
	if !ok {
		return apierrors.NewBadRequest("no user present on request")
	}
	if r.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	resources, urls, incomplete, err := d.Rules().RulesFor(ctx, u, r.Spec.Namespace)
	*r = authorizationv1.SelfSubjectRulesReview{} // the answer does not repeat the question
	r.Status = authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}, Incomplete: incomplete,
	}
	for _, p := range resources {
		r.Status.ResourceRules = append(r.Status.ResourceRules, authorizationv1.ResourceRule{
			Verbs: p.GetVerbs(), APIGroups: p.GetAPIGroups(), Resources: p.GetResources(), ResourceNames: p.GetResourceNames()})
	}
	for _, p := range urls {
		r.Status.NonResourceRules = append(r.Status.NonResourceRules, authorizationv1.NonResourceRule{
			Verbs: p.GetVerbs(), NonResourceURLs: p.GetNonResourceURLs()})
	}
	if err != nil {
		r.Status.EvaluationError = err.Error()
	}
	return nil
}

func spec(s authorizationv1.SubjectAccessReviewSpec) user.Info {
	extra := map[string][]string{}
	for k, v := range s.Extra {
		extra[k] = v
	}
	return &user.DefaultInfo{Name: s.User, Groups: s.Groups, UID: s.UID, Extra: extra}
}
