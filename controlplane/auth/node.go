package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
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
	verb, sub := a.GetVerb(), a.GetSubresource()
	r := ref{a.GetResource(), a.GetNamespace(), a.GetName()}
	switch a.GetAPIGroup() + "/" + a.GetResource() {
	case "/secrets", "/configmaps":
		return n.read(node, r, verb, sub)
	case "/persistentvolumeclaims":
		if sub == "status" {
			if verb != "update" && verb != "patch" {
				return false, "can only get/update/patch this type"
			}
			return n.related(node, r)
		}
		return n.get(node, r, verb, sub)
	case "/persistentvolumes", "storage.k8s.io/volumeattachments", "resource.k8s.io/resourceclaims":
		return n.get(node, r, verb, sub)
	case "/serviceaccounts":
		return n.serviceAccount(node, r, verb, sub)
	case "coordination.k8s.io/leases":
		if r.namespace != corev1.NamespaceNodeLease {
			return false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		return own(node, r.name, verb, "a node lease", "node lease")
	case "storage.k8s.io/csinodes":
		if sub != "" {
			return false, "cannot authorize CSINode subresources"
		}
		return own(node, r.name, verb, "a CSINode", "CSINode")
	case "resource.k8s.io/resourceslices":
		return n.slice(node, r, verb, sub, a)
	case "certificates.k8s.io/podcertificaterequests":
		return n.certificateRequest(node, r, verb, sub, a)
	case "/nodes":
		return ownNode(node, r.name, verb, sub)
	case "/pods":
		return n.pod(node, r, verb, sub, a)
	}
	return false, ""
}

// related: whether the node has to do with the object.
func (n *Node) related(node string, r ref) (bool, string) {
	switch {
	case r.name == "":
		return false, "No Object name found"
	case !n.graph.reaches(node, r):
		return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	return true, ""
}

func (n *Node) read(node string, r ref, verb, sub string) (bool, string) {
	switch {
	case verb != "get" && verb != "list" && verb != "watch":
		return false, "can only read resources of this type"
	case sub != "":
		return false, "cannot read subresource"
	case r.namespace == "":
		return false, "can only read namespaced object of this type"
	}
	return n.related(node, r)
}

func (n *Node) get(node string, r ref, verb, sub string) (bool, string) {
	switch {
	case verb != "get":
		return false, "can only get individual resources of this type"
	case sub != "":
		return false, "cannot get subresource"
	}
	return n.related(node, r)
}

func (n *Node) serviceAccount(node string, r ref, verb, sub string) (bool, string) {
	switch {
	case verb == "get" && sub == "":
		return n.read(node, r, verb, sub)
	case verb != "create" || r.name == "":
		return false, "can only create tokens for individual service accounts"
	case sub != "token":
		return false, "can only create token subresource of serviceaccount"
	}
	return n.related(node, r)
}

// own: an object that has the node's name. Which name is created, admission sees (NodeRestriction).
func own(node, name, verb, kind, what string) (bool, string) {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, verb):
		return false, "can only get, create, update, patch, or delete " + kind
	case verb != "create" && name != node:
		return false, fmt.Sprintf("can only access %s with the same name as the requesting node", what)
	}
	return true, ""
}

// ownNode: which Node is written, admission sees.
func ownNode(node, name, verb, sub string) (bool, string) {
	writes := verb == "update" || verb == "patch"
	switch {
	case sub == "" && (verb == "create" || writes), sub == "status" && writes:
		return true, ""
	case sub == "" && (verb == "get" || verb == "list" || verb == "watch"):
		switch name {
		case node:
			return true, ""
		case "":
			return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		}
		return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, name)
	}
	return false, ""
}

// pod: which pods a kubelet may create, write and evict is for admission, which sees the object.
func (n *Node) pod(node string, r ref, verb, sub string, a authorizer.Attributes) (bool, string) {
	switch sub {
	case "":
		switch verb {
		case "create", "delete":
			return true, ""
		case "get":
			return n.related(node, r)
		case "list", "watch":
			switch {
			case selects(a, "spec.nodeName", node):
				return true, ""
			case r.name != "":
				return n.related(node, r)
			}
			return false, "can only list/watch pods with spec.nodeName field selector"
		}
	case "status":
		return verb == "update" || verb == "patch", ""
	case "eviction":
		return verb == "create", ""
	}
	return false, ""
}

// slice: whose slice is created, admission sees.
func (n *Node) slice(node string, r ref, verb, sub string, a authorizer.Attributes) (bool, string) {
	switch {
	case sub != "":
		return false, "cannot authorize ResourceSlice subresources"
	case verb == "create":
		return true, ""
	case verb == "get", verb == "update", verb == "patch", verb == "delete":
		return n.related(node, r)
	case verb != "watch" && verb != "list" && verb != "deletecollection":
		return false, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
	case selects(a, "spec.nodeName", node):
		return true, ""
	}
	return false, "can only list/watch/deletecollection resourceslices with nodeName field selector"
}

// certificateRequest: for which pod one is created, admission sees.
func (n *Node) certificateRequest(node string, r ref, verb, sub string, a authorizer.Attributes) (bool, string) {
	switch {
	case sub != "":
		return false, "nodes may not access the status subresource of PodCertificateRequests"
	case verb == "create":
		return true, ""
	case verb == "get":
		return n.related(node, r)
	case verb != "list" && verb != "watch":
		return false, fmt.Sprintf("nodes may not %s podcertificaterequests", verb)
	case selects(a, "spec.nodeName", node):
		return true, ""
	}
	return false, "can only list/watch podcertificaterequests with nodeName field selector"
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
