package policy

import (
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// State is what the rules follow from.
type State struct {
	Policies   []*networkingv1.NetworkPolicy
	Namespaces map[string]labels.Set
	Pods       []Pod
}

// Pod is a pod with an address. Local pods are this node's, whose traffic is decided here.
type Pod struct {
	Namespace, Name string
	Addr            netip.Addr
	Labels          labels.Set
	Unknown         bool // the labels are not known yet: local, and to be kept shut
	Local           bool
	Ports           []NamedPort
}

// NamedPort is a container port that policies may name.
type NamedPort struct {
	Name, Proto string
	Number      uint16
}
