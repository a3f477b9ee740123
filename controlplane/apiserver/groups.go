package apiserver

import (
	corev1 "k8s.io/api/core/v1"
	"maps"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/admissionregistration"
	"keelson.dev/keelson/controlplane/resource/apiregistration"
	"keelson.dev/keelson/controlplane/resource/apps"
	"keelson.dev/keelson/controlplane/resource/authentication"
	"keelson.dev/keelson/controlplane/resource/authorization"
	"keelson.dev/keelson/controlplane/resource/autoscaling"
	"keelson.dev/keelson/controlplane/resource/batch"
	"keelson.dev/keelson/controlplane/resource/certificates"
	"keelson.dev/keelson/controlplane/resource/coordination"
	"keelson.dev/keelson/controlplane/resource/core"
	"keelson.dev/keelson/controlplane/resource/discovery"
	"keelson.dev/keelson/controlplane/resource/events"
	"keelson.dev/keelson/controlplane/resource/flowcontrol"
	"keelson.dev/keelson/controlplane/resource/metrics"
	"keelson.dev/keelson/controlplane/resource/networking"
	"keelson.dev/keelson/controlplane/resource/node"
	"keelson.dev/keelson/controlplane/resource/policy"
	"keelson.dev/keelson/controlplane/resource/rbac"
	"keelson.dev/keelson/controlplane/resource/resourcek8s"
	"keelson.dev/keelson/controlplane/resource/scheduling"
	"keelson.dev/keelson/controlplane/resource/storage"
	"keelson.dev/keelson/controlplane/resource/storagemigration"
)

// groups is everything that is served. A new group is one line here, in its place by the aggregator's priorities: clients that do not
// ask for aggregated discovery take the first group of /apis that has the name which they look for.
func (s *Server) groups() []resource.Group {
	may := func() authorizer.Authorizer { return s.authz.all }
	escalation := rbac.Checks{Authorizer: may, Rules: func() rbac.RuleResolver { return roleObjects{s.authz.rbac, s.stores} }}
	reviews := authorization.Deps{Authorizer: may, Rules: s.authz.rbac.Resolver}
	who := func() authentication.Authenticator { return s.authn }
	return []resource.Group{
		s.withConnections(core.Group()),
		apiregistration.Group(),
		apps.Group(),
		events.Group(),
		authentication.Group(who, s.tokens.Audiences()),
		authorization.Group(reviews),
		autoscaling.Group(),
		batch.Group(),
		certificates.Group(),
		networking.Group(),
		policy.Group(),
		rbac.GroupWith(escalation),
		storage.Group(),
		admissionregistration.GroupWith(admissionregistration.Checks{Authorizer: may, Resolve: s.resolve}),
		scheduling.Group(),
		coordination.Group(),
		node.Group(),
		discovery.Group(),
		resourcek8s.Group(),
		flowcontrol.Group(),
		storagemigration.Group(),
		metrics.Group(newLooks(s.kubelets).all),
	}
}

// withConnections adds the subresources that need what only the server has: keys to sign with, and a way to kubelets.
func (s *Server) withConnections(g resource.Group) resource.Group {
	objects := tokenObjects{s.stores}
	extra := map[string]map[string]rest.Storage{
		"ServiceAccount": {"token": tokenRequest{tokens: s.tokens, objects: objects}},
		"Node":           {"proxy": s.kubelets.nodeProxy()},
		"Service":        {"proxy": s.kubelets.serviceProxy()},
		"Pod": {
			"log":         podLog{s.kubelets},
			"proxy":       s.kubelets.podProxy(),
			"exec":        s.podStream("exec", func() runtime.Object { return &corev1.PodExecOptions{} }),
			"attach":      s.podStream("attach", func() runtime.Object { return &corev1.PodAttachOptions{} }),
			"portforward": s.podStream("portForward", func() runtime.Object { return &corev1.PodPortForwardOptions{} }),
		},
	}
	for i := range g.Kinds {
		if more := extra[g.Kinds[i].Kind]; more != nil {
			g.Kinds[i].Install = withMore(g.Kinds[i].Install, more)
		}
	}
	return g
}

func (s *Server) podStream(verb string, options func() runtime.Object) podStream {
	return podStream{kubelets: s.kubelets, may: func() authorizer.Authorizer { return s.authz.all }, verb: verb, options: options}
}

type install = func(resource.Deps, *genericregistry.Store) (map[string]rest.Storage, error)

func withMore(own install, more map[string]rest.Storage) install {
	return func(d resource.Deps, st *genericregistry.Store) (map[string]rest.Storage, error) {
		out := map[string]rest.Storage{}
		if own != nil {
			mine, err := own(d, st)
			if err != nil {
				return nil, err
			}
			maps.Copy(out, mine)
		}
		maps.Copy(out, more)
		return out, nil
	}
}
