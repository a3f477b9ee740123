package admission

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	webhookinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	apiwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/resource/admissionregistration"
)

// Webhooks and policies come from the library. Each of its plugins costs memory and time from its first moment, the
// policies a poll of the OpenAPI document too: so each is made when the first object that configures it exists.

// configured are the informers of the four configuring kinds, started together by the first write.
type configured struct {
	deps  Deps
	once  sync.Once
	kinds [4]cache.SharedIndexInformer // set by once
}

const (
	mutatingPolicies = iota
	mutatingWebhooks
	validatingPolicies
	validatingWebhooks
)

// enabled: a server without these kinds must not wait for their informers.
func (d Deps) enabled() bool { return d.Features != nil && d.Version != nil }

func (c *configured) informers() [4]cache.SharedIndexInformer {
	c.once.Do(func() {
		v1 := c.deps.Informers.Admissionregistration().V1()
		c.kinds = [4]cache.SharedIndexInformer{
			mutatingPolicies:   v1.MutatingAdmissionPolicies().Informer(),
			mutatingWebhooks:   v1.MutatingWebhookConfigurations().Informer(),
			validatingPolicies: v1.ValidatingAdmissionPolicies().Informer(),
			validatingWebhooks: v1.ValidatingWebhookConfigurations().Informer(),
		}
		c.deps.Informers.Start(c.deps.Stop)
	})
	return c.kinds
}

// lazy is a plugin of the library that exists once something configures it.
type lazy struct {
	*admission.Handler
	source  *configured
	kind    int
	enabled bool
	build   func() (admission.Interface, error)

	once  sync.Once
	inner admission.Interface // set by once
	err   error               // set by once
}

// get returns the plugin, or nil if there is nothing for it to do.
func (l *lazy) get(ctx context.Context, a admission.Attributes) (admission.Interface, error) {
	if !l.enabled {
		return nil, nil
	}
	kind := l.source.informers()[l.kind]
	if !kind.HasSynced() {
		// The server's own first writes do not wait: they make what the others wait for.
		if u := a.GetUserInfo(); u != nil && u.GetName() == user.APIServerUser {
			return nil, nil
		}
		if err := waitFor(ctx, kind.HasSyncedChecker().Done()); err != nil {
			return nil, admission.NewForbidden(a, err)
		}
	}
	if len(kind.GetIndexer().ListKeys()) == 0 {
		return nil, nil
	}
	l.once.Do(func() {
		l.inner, l.err = l.build()
		l.source.deps.Informers.Start(l.source.deps.Stop)
	})
	if l.err != nil {
		return nil, admission.NewForbidden(a, l.err)
	}
	return l.inner, nil
}

// lazyMutating and lazyValidating are a lazy plugin in the one role it has.
type lazyMutating struct{ *lazy }

func (l lazyMutating) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	p, err := l.get(ctx, a)
	if m, ok := p.(admission.MutationInterface); ok && err == nil && p.Handles(a.GetOperation()) {
		return m.Admit(ctx, a, o)
	}
	return err
}

type lazyValidating struct{ *lazy }

func (l lazyValidating) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	p, err := l.get(ctx, a)
	if v, ok := p.(admission.ValidationInterface); ok && err == nil && p.Handles(a.GetOperation()) {
		return v.Validate(ctx, a, o)
	}
	return err
}

func (c *cluster) newLazy(kind int, enabled bool, build func() (admission.Interface, error)) *lazy {
	return &lazy{
		Handler: admission.NewHandler(admission.Connect, admission.Create, admission.Delete, admission.Update),
		source:  c.extensions, kind: kind, enabled: enabled, build: build,
	}
}

// initialized gives a plugin what it asks for and checks that it has all.
func (d Deps) initialized(p admission.Interface, err error) (admission.Interface, error) {
	if err != nil {
		return nil, err
	}
	d.initializers().Initialize(p)
	services := d.Services
	if services == nil {
		services = apiwebhook.NewDefaultServiceResolver()
	}
	auth := d.WebhookAuth
	if auth == nil {
		auth = func(r apiwebhook.AuthenticationInfoResolver) apiwebhook.AuthenticationInfoResolver { return r }
	}
	webhookinit.NewPluginInitializer(auth, services).Initialize(p)
	if w, ok := p.(initializer.WantsExcludedAdmissionResources); ok {
		w.SetExcludedAdmissionResources(admissionregistration.Excluded())
	}
	if err := admission.ValidateInitialization(p); err != nil {
		return nil, fmt.Errorf("start admission by webhooks or policies: %w", err)
	}
	return p, nil
}

func (d Deps) policies() bool { return d.enabled() && d.Dynamic != nil && d.RESTMapper != nil }

func newMutatingPolicy(c *cluster, d Deps) admission.Interface {
	return lazyMutating{c.newLazy(mutatingPolicies, d.policies(), func() (admission.Interface, error) {
		p, err := mutatingpolicy.NewPlugin(nil)
		return d.initialized(p, err)
	})}
}

func newMutatingWebhook(c *cluster, d Deps) admission.Interface {
	return lazyMutating{c.newLazy(mutatingWebhooks, d.enabled(), func() (admission.Interface, error) {
		p, err := mutatingwebhook.NewMutatingWebhook(nil)
		return d.initialized(p, err)
	})}
}

func newValidatingPolicy(c *cluster, d Deps) admission.Interface {
	return lazyValidating{c.newLazy(validatingPolicies, d.policies(), func() (admission.Interface, error) {
		p, err := validatingpolicy.NewPlugin(nil)
		return d.initialized(p, err)
	})}
}

func newValidatingWebhook(c *cluster, d Deps) admission.Interface {
	return lazyValidating{c.newLazy(validatingWebhooks, d.enabled(), func() (admission.Interface, error) {
		p, err := validatingwebhook.NewValidatingAdmissionWebhook(nil)
		return d.initialized(p, err)
	})}
}
