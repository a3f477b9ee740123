package admission

import (
	"context"
	"errors"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/component-base/metrics/legacyregistry"
	podsecurity "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"
)

// newPodSecurity holds pods to the standard that their namespace's labels ask for.
func (c *cluster) newPodSecurity() (admission.Interface, error) {
	config, err := load.LoadFromData(nil)
	if err != nil {
		return nil, err
	}
	checks, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	judge := &podsecurity.Admission{
		Configuration:    config,
		Evaluator:        checks,
		Metrics:          podSecurityMetrics(),
		PodSpecExtractor: podsecurity.DefaultPodSpecExtractor{},
		PodLister:        podsecurity.PodListerFromClient(c.client),
		NamespaceGetter:  namespaceGetter{c},
	}
	if err := judge.CompleteConfiguration(); err != nil {
		return nil, err
	}
	if err := judge.ValidateConfiguration(); err != nil {
		return nil, err
	}
	return validator{admission.NewHandler(admission.Create, admission.Update), func(ctx context.Context, a admission.Attributes) error {
		gr := a.GetResource().GroupResource()
		if gr != namespaces && gr != pods && !judge.PodSpecExtractor.HasPodSpec(gr) {
			return nil
		}
		return secured(ctx, a, judge.Validate(ctx, attributes{a}))
	}}, nil
}

// podSecurityMetrics are shared by all servers of a process, as the registry of metrics is.
var podSecurityMetrics = sync.OnceValue(func() metrics.Recorder {
	v := compatibility.DefaultBuildEffectiveVersion().BinaryVersion()
	r := metrics.NewPrometheusRecorder(api.MajorMinorVersion(int(v.Major()), int(v.Minor()))) //nolint:gosec // small numbers
	r.MustRegister(legacyregistry.MustRegister)
	return r
})

type namespaceGetter struct{ *cluster }

func (g namespaceGetter) GetNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	return g.namespaces.Get(ctx, "", name)
}

// secured turns the library's answer into ours: warnings and annotations go out with whatever is decided.
func secured(ctx context.Context, a admission.Attributes, r *admissionv1.AdmissionResponse) error {
	for _, w := range r.Warnings {
		warning.AddWarning(ctx, "", w)
	}
	for k, v := range r.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, "pod-security.kubernetes.io/"+k, v)
	}
	if r.Allowed {
		return nil
	}
	err := admission.NewForbidden(a, errors.New("Not allowed by PodSecurity"))
	var status *apierrors.StatusError
	if r.Result == nil || !errors.As(err, &status) {
		return err
	}
	if r.Result.Message != "" {
		status.ErrStatus.Message = r.Result.Message
	}
	if r.Result.Code != 0 {
		status.ErrStatus.Code = r.Result.Code
	}
	if r.Result.Details != nil {
		status.ErrStatus.Details = r.Result.Details
	}
	if r.Result.Reason != "" {
		status.ErrStatus.Reason = r.Result.Reason
	}
	return status
}

// attributes are a request as the library wants it. Our objects are of the published types already.
type attributes struct{ admission.Attributes }

func (a attributes) GetOperation() admissionv1.Operation {
	return admissionv1.Operation(a.Attributes.GetOperation())
}
func (a attributes) GetObject() (runtime.Object, error)    { return a.Attributes.GetObject(), nil }
func (a attributes) GetOldObject() (runtime.Object, error) { return a.Attributes.GetOldObject(), nil }
func (a attributes) GetUserName() string                   { return a.GetUserInfo().GetName() }
