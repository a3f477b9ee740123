package apiserver

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"maps"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/apps"
	"keelson.dev/keelson/controlplane/resource/authentication"
	"keelson.dev/keelson/controlplane/resource/authorization"
	"keelson.dev/keelson/controlplane/resource/batch"
	"keelson.dev/keelson/controlplane/resource/coordination"
	"keelson.dev/keelson/controlplane/resource/core"
	"keelson.dev/keelson/controlplane/resource/discovery"
	"keelson.dev/keelson/controlplane/resource/events"
	"keelson.dev/keelson/controlplane/resource/node"
	"keelson.dev/keelson/controlplane/resource/policy"
	"keelson.dev/keelson/controlplane/resource/rbac"
	"keelson.dev/keelson/controlplane/resource/scheduling"
)

// groups is everything that is served. A new group is one line here.
func (s *Server) groups() []resource.Group {
	may := func() authorizer.Authorizer { return s.authz.all }
	escalation := rbac.Checks{Authorizer: may, Rules: func() rbac.RuleResolver { return s.authz.rbac }}
	reviews := authorization.Deps{Authorizer: may, Rules: s.authz.rbac.Resolver}
	who := func() authentication.Authenticator { return s.authn }
	return []resource.Group{
		s.withConnections(core.Group()),
		authentication.Group(who, s.tokens.Audiences()),
		authorization.Group(reviews),
		apps.Group(),
		batch.Group(),
		policy.Group(),
		coordination.Group(),
		discovery.Group(),
		events.Group(),
		addresses(),
		scales(),
		node.Group(),
		rbac.GroupWith(escalation),
		scheduling.Group(),
	}
}

// scales is what apps need of autoscaling, until that group is whole.
func scales() resource.Group {
	return resource.Group{
		Name: autoscalingv1.GroupName, AddToScheme: []func(*runtime.Scheme) error{autoscalingv1.AddToScheme},
		Kinds: []resource.Kind{{Kind: "Scale", New: func() runtime.Object { return &autoscalingv1.Scale{} }}},
	}
}

// addresses is what Services need of networking.k8s.io, until that group is whole.
func addresses() resource.Group {
	return resource.Group{
		Name: networkingv1.GroupName, Versions: []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{networkingv1.AddToScheme},
		Kinds: []resource.Kind{{
			Kind: "IPAddress", Plural: "ipaddresses", ShortNames: []string{"ip"},
			New:     func() runtime.Object { return &networkingv1.IPAddress{} },
			NewList: func() runtime.Object { return &networkingv1.IPAddressList{} },
		}},
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
