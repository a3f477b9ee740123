package admission

import (
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/metrics"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
)

// Deps of the plugins.
type Deps struct {
	// Client acts as an identity that may read and write everything; required. It is not called before the first request.
	Client kubernetes.Interface
	// Informers is shared with others and started by its owner (and again by plugins that need one more informer); required.
	Informers informers.SharedInformerFactory
	// Authorizer answers whether a requester may approve, sign or attest; required.
	Authorizer authorizer.Authorizer
	// Stop ends the library's plugins; required.
	Stop <-chan struct{}

	// Dynamic and RESTMapper read the parameters of CEL policies. Without both, such policies are not enforced.
	Dynamic    dynamic.Interface
	RESTMapper meta.RESTMapper
	// Features and Version are the library's; required with Dynamic.
	Features featuregate.FeatureGate
	Version  basecompatibility.EffectiveVersion

	// Services finds webhooks that are Services, WebhookAuth authenticates to them; nil: the Service's cluster address,
	// and no credentials.
	Services    webhook.ServiceResolver
	WebhookAuth webhook.AuthenticationInfoResolverWrapper
}

func (d Deps) validate() error {
	switch {
	case d.Client == nil:
		return errors.New("admission: no client")
	case d.Informers == nil:
		return errors.New("admission: no informers")
	case d.Authorizer == nil:
		return errors.New("admission: no authorizer")
	case d.Stop == nil:
		return errors.New("admission: no stop channel")
	}
	return nil
}

// plugin is one step of admission.
type plugin struct {
	name string
	make func() (admission.Interface, error)
}

// ours makes a plugin that needs nothing that could fail.
func ours(name string, p admission.Interface) plugin {
	return plugin{name, func() (admission.Interface, error) { return p, nil }}
}

// New returns all plugins as one. It starts nothing and asks nothing.
func New(d Deps) (admission.Interface, error) {
	if err := d.validate(); err != nil {
		return nil, err
	}
	ps := plugins(d)
	registry, names := &admission.Plugins{}, make([]string, len(ps))
	for i, p := range ps {
		registry.Register(p.name, func(io.Reader) (admission.Interface, error) { return p.make() })
		names[i] = p.name
	}
	chain, err := registry.NewFromPlugins(names, noConfig{}, admission.PluginInitializers{}, admission.DecoratorFunc(metrics.WithControllerMetrics))
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	return metrics.WithStepMetrics(chain), nil
}

// plugins are in upstream's order: what fills in comes before what judges, and webhooks, policies and quota come last.
func plugins(d Deps) []plugin {
	c := newCluster(d)
	return []plugin{
		{"NamespaceLifecycle", c.newLifecycle},
		ours("LimitRanger", newLimitRanger(c)),
		ours("ServiceAccount", newServiceAccount(c)),
		ours("NodeRestriction", newNodeRestriction(c, d.Authorizer)),
		ours("TaintNodesByCondition", newTaintNodes()),
		{"PodSecurity", c.newPodSecurity},
		ours("Priority", newPriority(c)),
		ours("DefaultTolerationSeconds", newTolerationSeconds()),
		ours("DefaultStorageClass", newDefaultStorageClass(c)),
		ours("StorageObjectInUseProtection", newInUseProtection()),
		ours("PersistentVolumeClaimResize", newResize(c)),
		ours("RuntimeClass", newRuntimeClass(c)),
		ours("CertificateApproval", newCertificateApproval(d.Authorizer)),
		ours("CertificateSigning", newCertificateSigning(d.Authorizer)),
		ours("ClusterTrustBundleAttest", newTrustBundleAttest(d.Authorizer)),
		ours("CertificateSubjectRestriction", newSubjectRestriction()),
		ours("Devices", newDevices(c, d.Authorizer)),
		ours("DefaultIngressClass", newDefaultIngressClass(c)),
		ours("DenyServiceExternalIPs", newDenyExternalIPs(d.Authorizer)),
		ours("PodTopologyLabels", newTopologyLabels(c)),
		ours("NodeDeclaredFeatureValidator", newDeclaredFeatures(c)),
		ours("PodResizeValidator", newPodResize(c)),
		ours("MutatingAdmissionPolicy", newMutatingPolicy(c, d)),
		ours("MutatingAdmissionWebhook", newMutatingWebhook(c, d)),
		ours("SelectableFields", newSelectableFields()),
		ours("ValidatingAdmissionPolicy", newValidatingPolicy(c, d)),
		ours("ValidatingAdmissionWebhook", newValidatingWebhook(c, d)),
		{"ResourceQuota", c.newQuota},
	}
}

// noConfig: the plugins have no configuration files.
type noConfig struct{}

func (noConfig) ConfigFor(string) (io.Reader, error) { return nil, nil }

// initializers hand the library's plugins what they ask for.
func (d Deps) initializers() admission.PluginInitializer {
	return initializer.New(d.Client, d.Dynamic, lasting{d.Informers, d.Stop}, d.Authorizer, d.Features, d.Version, d.Stop, d.RESTMapper)
}

// lasting are informers that run until the server stops, whoever starts them. The library's policies start the informer of a kind of
// parameters for as long as a policy has such parameters; an informer that has ended is never started again, and the next policy's
// parameters would stay what they were then.
type lasting struct {
	informers.SharedInformerFactory
	stop <-chan struct{}
}

func (l lasting) Start(<-chan struct{}) { l.SharedInformerFactory.Start(l.stop) }
