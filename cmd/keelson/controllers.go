package main

import (
	"crypto/x509"
	"time"

	apiquota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"

	"keelson.dev/keelson/controlplane/admission/quota"
	"keelson.dev/keelson/controlplane/auth"
	"keelson.dev/keelson/controlplane/controller"
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
	return resourcequota.New(resourcequota.Deps{Deps: d, Metadata: meter, Mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(finder)),
		Measures: func(l apiquota.ListerForResourceFunc) []apiquota.Evaluator {
			return quota.New(l, time.Now).Evaluators()
		}})
}

// certificates are signed by the cluster's own authority.
func (p *plane) certificates(d controller.Deps) (*controller.Loop, error) {
	return certificates.New(d, func(r *x509.CertificateRequest, o certificates.Order) ([]byte, error) {
		return p.server.PKI().CA.SignRequest(r, auth.Uses{Key: o.Key, Extended: o.Extended, Lifetime: min(o.Lifetime, auth.LeafLifetime)})
	})
}
