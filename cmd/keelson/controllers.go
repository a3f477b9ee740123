package main

import (
	"crypto/x509"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/user"
	apiquota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"

	"keelson.dev/keelson/controlplane/admission/quota"
	"keelson.dev/keelson/controlplane/auth"
	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/accounttoken"
	"keelson.dev/keelson/controlplane/controller/certificates"
	"keelson.dev/keelson/controlplane/controller/resourcequota"
)

// What controllers need of other parts of the control plane, of which they know nothing, is given to them here.

// quotas are measured as admission charges them.
func (p *plane) quotas(d controller.Deps) (*controller.Loop, error) {
	meter, finder, err := p.metadataClients("resourcequota-controller")
	if err != nil {
		return nil, err
	}
	devices := d.Informers.Resource().V1().DeviceClasses()
	devices.Informer()
	classes := func() []*resourcev1.DeviceClass {
		list, err := devices.Lister().List(labels.Everything())
		if err != nil {
			return nil
		}
		return list
	}
	return resourcequota.New(resourcequota.Deps{Deps: d, Metadata: meter, Mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(finder)),
		Measures: func(l apiquota.ListerForResourceFunc) []apiquota.Evaluator {
			return quota.New(l, classes, time.Now).Evaluators()
		}})
}

// certificates are signed by the cluster's own authority.
func (p *plane) certificates(d controller.Deps) (*controller.Loop, error) {
	return certificates.New(d, func(r *x509.CertificateRequest, o certificates.Order) ([]byte, error) {
		return p.server.PKI().CA.SignRequest(r, auth.Uses{Key: o.Key, Extended: o.Extended, Lifetime: min(o.Lifetime, auth.LeafLifetime)})
	})
}

// oldTokens lists Secrets as the controller manager itself: upstream's role of its own lets it only change them.
func (p *plane) oldTokens(d controller.Deps) (*controller.Loop, error) {
	reader, err := kubernetes.NewForConfig(p.as(user.KubeControllerManager))
	if err != nil {
		return nil, err
	}
	return accounttoken.NewCleaner(d, reader.CoreV1())
}

// accountTokens works as the controller manager itself, which upstream's roles give the right to write Secrets.
func (p *plane) accountTokens(d controller.Deps) (loop *controller.Loop, err error) {
	if d.Client, err = kubernetes.NewForConfig(p.as(user.KubeControllerManager)); err != nil {
		return nil, err
	}
	tokens := p.server.Tokens()
	return accounttoken.New(accounttoken.Deps{Deps: d, CA: p.server.PKI().CA.PEM, Issue: func(a *corev1.ServiceAccount, s *corev1.Secret) (string, error) {
		token, _, err := tokens.Issue(auth.Binding{Namespace: a.Namespace, ServiceAccount: auth.Ref{Name: a.Name, UID: a.UID},
			Secret: &auth.Ref{Name: s.Name, UID: s.UID}}, tokens.Audiences(), 0, time.Now())
		return token, err
	}})
}
