package apiserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
)

// steps are upstream's names of what a server does when it starts, which probes exclude and suites look for. Here they are one:
// each is ok when the server is ready.
var steps = strings.Fields(`start-apiserver-admission-initializer generic-apiserver-start-informers crd-informer-synced
start-system-namespaces-controller start-cluster-authentication-info-controller storage-readiness start-service-ip-repair-controllers
start-kubernetes-service-cidr-controller rbac/bootstrap-roles scheduling/bootstrap-system-priority-classes
priority-and-fairness-config-producer bootstrap-controller start-kube-aggregator-informers apiservice-registration-controller
apiservice-status-local-available-controller apiservice-status-remote-available-controller apiservice-discovery-controller
kube-apiserver-autoregistration apiservice-openapi-controller apiservice-openapiv3-controller`)

func (s *Server) health(c *genericapiserver.Config) {
	c.AddHealthChecks(healthz.NamedCheck("etcd", func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		return s.store.Healthy(ctx)
	}))
	begun := func(*http.Request) error {
		select {
		case <-s.ready:
			return nil
		default:
			return errors.New("the objects of a new cluster are not all there yet")
		}
	}
	for _, name := range steps {
		c.AddHealthChecks(healthz.NamedCheck("poststarthook/"+name, begun))
	}
	c.AddHealthChecks(healthz.NamedCheck("autoregister-completion", begun))
	c.AddReadyzChecks(healthz.NamedCheck("disk", func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		return s.store.Disk(ctx)
	}), healthz.NamedCheck("informer-sync", begun), healthz.NamedCheck("bootstrap", begun))
}
