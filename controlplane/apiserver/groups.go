package apiserver

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/coordination"
	"keelson.dev/keelson/controlplane/resource/core"
	"keelson.dev/keelson/controlplane/resource/discovery"
	"keelson.dev/keelson/controlplane/resource/events"
	"keelson.dev/keelson/controlplane/resource/node"
	"keelson.dev/keelson/controlplane/resource/rbac"
	"keelson.dev/keelson/controlplane/resource/scheduling"
)

// groups is everything that is served. A new group is one line here.
func groups(a authorizers) []resource.Group {
	escalation := rbac.Checks{
		Authorizer: func() authorizer.Authorizer { return a.all },
		Rules:      func() rbac.RuleResolver { return a.rbac },
	}
	return []resource.Group{
		core.Group(),
		coordination.Group(),
		discovery.Group(),
		events.Group(),
		addresses(),
		node.Group(),
		rbac.GroupWith(escalation),
		scheduling.Group(),
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
