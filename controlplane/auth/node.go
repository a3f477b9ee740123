package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

const nodeUserPrefix = "system:node:"

// NodeName returns the node that a user is the kubelet of.
func NodeName(u user.Info) (string, bool) {
	name, ok := strings.CutPrefix(u.GetName(), nodeUserPrefix)
	return name, ok && name != "" && slices.Contains(u.GetGroups(), user.NodesGroup)
}

// NodeUser is the identity of a node's kubelet.
func NodeUser(node string) *user.DefaultInfo {
	return &user.DefaultInfo{Name: nodeUserPrefix + node, Groups: []string{user.NodesGroup, user.AllAuthenticated}}
}

// Node authorizes kubelets: each may act on its own node and pods, and read what those pods refer to. What it has no
// opinion on, RBAC decides, so a kubelet can be given more.
type Node struct {
	graph *graph
	// rules are what every kubelet may do, whatever runs on it.
	rules []rbacv1.PolicyRule
}

// governed are the resources that the graph decides on; the role of nodes gives the rest.
var governed = []string{
	"secrets", "configmaps", "persistentvolumeclaims", "persistentvolumeclaims/status", "persistentvolumes",
	"volumeattachments", "resourceclaims", "serviceaccounts", "serviceaccounts/token", "leases", "csinodes",
	"resourceslices", "nodes", "nodes/status", "pods", "pods/status", "pods/eviction", "podcertificaterequests",
}

// NewNode returns a Node authorizer that knows no pods; Run fills it.
func NewNode() (*Node, error) {
	p, err := parsePolicy(policyText)
	if err != nil {
		return nil, err
	}
	n := &Node{graph: newGraph()}
	at := slices.IndexFunc(p.ClusterRoles, func(r rbacv1.ClusterRole) bool { return r.Name == "system:node" })
	for _, r := range p.ClusterRoles[at].Rules {
		r.Resources = slices.DeleteFunc(slices.Clone(r.Resources), func(s string) bool { return slices.Contains(governed, s) })
		if len(r.Resources) > 0 {
			n.rules = append(n.rules, r)
		}
	}
	return n, nil
}

// Run follows pods and volumes until ctx ends.
func (n *Node) Run(ctx context.Context, source Source) { n.graph.run(ctx, source) }

// Synced waits until the pods that existed when Run began are known.
func (n *Node) Synced(ctx context.Context) error {
	select {
	case <-n.graph.pods.synced:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Authorize implements authorizer.Authorizer; it allows or has no opinion.
func (n *Node) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	node, ok := NodeName(a.GetUser())
	if !ok {
		return authorizer.DecisionNoOpinion, "", nil
	}
	allowed, reason := n.may(node, a)
	if allowed {
		return authorizer.DecisionAllow, "", nil
	}
	if reason == "" {
		for i := range n.rules {
			if allows(&n.rules[i], a) {
				return authorizer.DecisionAllow, "", nil
			}
		}
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// may decides on governed resources; it gives a reason for each refusal, and none for what it does not govern.
func (n *Node) may(node string, a authorizer.Attributes) (bool, string) {
	if !a.IsResourceRequest() {
		return false, ""
	}
	verb, sub, name := a.GetVerb(), a.GetSubresource(), a.GetName()
	r := ref{a.GetResource(), a.GetNamespace(), name}
	path := a.GetAPIGroup() + "/" + a.GetResource()
	if sub != "" {
		path += "/" + sub
	}
	switch path {
	case "/secrets", "/configmaps":
		return n.related(node, r, slices.Contains([]string{"get", "list", "watch"}, verb), "can only read namespaced object of this type")
	case "/persistentvolumeclaims", "/persistentvolumes", "storage.k8s.io/volumeattachments", "resource.k8s.io/resourceclaims":
		return n.related(node, r, verb == "get", "can only get individual resources of this type")
	case "/persistentvolumeclaims/status":
		return n.related(node, r, slices.Contains([]string{"get", "update", "patch"}, verb), "can only get, update or patch status of this type")
	case "/serviceaccounts":
		return n.related(node, r, verb == "get", "can only get service accounts of pods on this node")
	case "/serviceaccounts/token":
		return n.related(node, r, verb == "create", "can only create tokens for individual service accounts")
	case "coordination.k8s.io/leases":
		return own(node, name, verb, "get create update patch delete", a.GetNamespace() == "kube-node-lease", "can only access the node's own lease")
	case "storage.k8s.io/csinodes":
		return own(node, name, verb, "get create update patch delete", true, "can only access CSINode with the same name as the requesting node")
	case "resource.k8s.io/resourceslices":
		return n.slices(node, verb, a)
	case "certificates.k8s.io/podcertificaterequests":
		reads := (verb == "list" || verb == "watch") && selects(a, "spec.nodeName", node)
		return verb == "create" || verb == "get" || reads, "can only access its own pods' certificate requests"
	}
	if a.GetAPIGroup() == "" {
		switch r.resource {
		case "nodes":
			return ownNode(node, name, verb, sub)
		case "pods":
			return n.pod(node, verb, sub, r, a)
		}
	}
	return false, ""
}

func (n *Node) related(node string, r ref, verbAllowed bool, limit string) (bool, string) {
	switch {
	case !verbAllowed || r.name == "":
		return false, limit
	case !n.graph.reaches(node, r):
		return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	return true, ""
}

func own(node, name, verb, verbs string, place bool, limit string) (bool, string) {
	if !place || !slices.Contains(strings.Fields(verbs), verb) || name != node && !(verb == "create" && name == "") {
		return false, limit
	}
	return true, ""
}

func ownNode(node, name, verb, sub string) (bool, string) {
	switch {
	case sub == "" && verb == "create" && (name == "" || name == node):
		return true, ""
	case sub == "" && name == node && slices.Contains([]string{"get", "list", "watch", "update", "patch"}, verb):
		return true, ""
	case sub == "status" && name == node && slices.Contains([]string{"get", "update", "patch"}, verb):
		return true, ""
	}
	return false, fmt.Sprintf("node '%s' cannot %s another node or all nodes; it can read and modify only its own Node object", node, verb)
}

// pod: which pods a kubelet may create is for admission (NodeRestriction), which sees the object.
func (n *Node) pod(node, verb, sub string, r ref, a authorizer.Attributes) (bool, string) {
	switch sub {
	case "":
		switch {
		case verb == "create", verb == "delete" && r.name != "":
			return true, ""
		case verb == "get" && r.name != "":
			return n.related(node, r, true, "")
		case (verb == "list" || verb == "watch") && selects(a, "spec.nodeName", node):
			return true, ""
		}
		return false, "can only list/watch pods with spec.nodeName field selector of its own name"
	case "status":
		if verb == "get" || verb == "update" || verb == "patch" {
			return true, ""
		}
	case "eviction":
		if verb == "create" {
			return true, ""
		}
	}
	return false, fmt.Sprintf("a node cannot %s pods/%s", verb, sub)
}

func (n *Node) slices(node, verb string, a authorizer.Attributes) (bool, string) {
	switch verb {
	case "create":
		return true, "" // whose slice it is, admission sees
	case "list", "watch", "deletecollection":
		if selects(a, "spec.nodeName", node) {
			return true, ""
		}
	}
	return false, "can only list/watch/deletecollection resourceslices with nodeName field selector"
}

// selects tells whether the request is confined to objects whose field has the value.
func selects(a authorizer.Attributes, field, value string) bool {
	reqs, err := a.GetFieldSelector()
	return err == nil && slices.ContainsFunc(reqs, func(r fields.Requirement) bool {
		return r.Field == field && r.Value == value && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals)
	})
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (n *Node) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(n.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer.
func (n *Node) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}
