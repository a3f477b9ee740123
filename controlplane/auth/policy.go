package auth

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed policy.txt
var policyText string

const aggregateLabel = "rbac.authorization.k8s.io/aggregate-to-"

// Policy is the roles and bindings that every cluster has.
type Policy struct {
	ClusterRoles        []rbacv1.ClusterRole
	Roles               []rbacv1.Role
	ClusterRoleBindings []rbacv1.ClusterRoleBinding
	RoleBindings        []rbacv1.RoleBinding
}

// BootstrapPolicy returns the built-in policy. Aggregated roles come with the rules of the built-in roles that they
// aggregate, so that they work before a controller has looked at them.
func BootstrapPolicy() (Policy, error) {
	p, err := parsePolicy(policyText)
	if err == nil {
		p.aggregate()
	}
	return p, err
}

// parsePolicy reads the form that the head of policy.txt describes.
func parsePolicy(text string) (Policy, error) {
	var p Policy
	var rules *[]rbacv1.PolicyRule // of the role being read
	for n, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		fail := func(err error) (Policy, error) { return p, fmt.Errorf("policy line %d: %w", n+1, err) }
		if strings.HasPrefix(line, " ") {
			r, err := parseRule(f)
			if err != nil || rules == nil {
				return fail(fmt.Errorf("rule %q: not after a role, or %w", line, err))
			}
			*rules = append(*rules, r)
			continue
		}
		var err error
		if rules, err = p.statement(f); err != nil {
			return fail(err)
		}
	}
	return p, nil
}

// statement adds the role or binding of a line; for a role it returns where its rules go.
func (p *Policy) statement(f []string) (*[]rbacv1.PolicyRule, error) {
	switch {
	case f[0] == "clusterrole" && len(f) >= 2:
		return p.addClusterRole(f[1], f[2:])
	case f[0] == "controller" && len(f) == 2:
		name := "system:controller:" + f[1]
		if err := p.addClusterBinding(name, name, []string{"serviceaccount:kube-system/" + f[1]}); err != nil {
			return nil, err
		}
		return p.addClusterRole(name, nil)
	case f[0] == "role" && len(f) == 3:
		p.Roles = append(p.Roles, rbacv1.Role{ObjectMeta: bootstrapMeta(f[1], f[2])})
		return &p.Roles[len(p.Roles)-1].Rules, nil
	case f[0] == "bind" && len(f) >= 3:
		return nil, p.addClusterBinding(f[1], f[2], f[3:])
	case f[0] == "rolebind" && len(f) >= 4:
		subjects, err := parseSubjects(f[4:])
		p.RoleBindings = append(p.RoleBindings, rbacv1.RoleBinding{
			ObjectMeta: bootstrapMeta(f[1], f[2]), Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: f[3]},
		})
		return nil, err
	}
	return nil, fmt.Errorf("cannot read %q", f)
}

func (p *Policy) addClusterRole(name string, options []string) (*[]rbacv1.PolicyRule, error) {
	r := rbacv1.ClusterRole{ObjectMeta: bootstrapMeta("", name)}
	for _, o := range options {
		if to, ok := strings.CutPrefix(o, "into:"); ok {
			r.Labels[aggregateLabel+to] = "true"
		} else if from, ok := strings.CutPrefix(o, "from:"); ok {
			r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
				{MatchLabels: map[string]string{aggregateLabel + from: "true"}}}}
		} else {
			return nil, fmt.Errorf("cannot read %q of cluster role %s", o, name)
		}
	}
	p.ClusterRoles = append(p.ClusterRoles, r)
	return &p.ClusterRoles[len(p.ClusterRoles)-1].Rules, nil
}

func (p *Policy) addClusterBinding(name, role string, subjects []string) error {
	s, err := parseSubjects(subjects)
	p.ClusterRoleBindings = append(p.ClusterRoleBindings, rbacv1.ClusterRoleBinding{
		ObjectMeta: bootstrapMeta("", name), Subjects: s,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	})
	return err
}

// aggregate fills aggregated roles, innermost first: edit is aggregated and part of admin.
func (p *Policy) aggregate() {
	for _, name := range []string{"view", "edit", "admin"} {
		at := slices.IndexFunc(p.ClusterRoles, func(r rbacv1.ClusterRole) bool { return r.Name == name })
		for i := range p.ClusterRoles {
			if at >= 0 && i != at && p.ClusterRoles[i].Labels[aggregateLabel+name] != "" {
				p.ClusterRoles[at].Rules = append(p.ClusterRoles[at].Rules, p.ClusterRoles[i].Rules...)
			}
		}
	}
}

func bootstrapMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
}

func parseRule(f []string) (rbacv1.PolicyRule, error) {
	if len(f) < 3 || len(f) > 4 {
		return rbacv1.PolicyRule{}, fmt.Errorf("want 3 or 4 columns")
	}
	r := rbacv1.PolicyRule{Verbs: strings.Split(f[0], ",")}
	if f[1] == "url" {
		r.NonResourceURLs = strings.Split(f[2], ",")
		return r, nil
	}
	for _, g := range strings.Split(f[1], ",") {
		if g == "core" {
			g = ""
		}
		r.APIGroups = append(r.APIGroups, g)
	}
	r.Resources = strings.Split(f[2], ",")
	if len(f) == 4 {
		r.ResourceNames = strings.Split(f[3], ",")
	}
	return r, nil
}

func parseSubjects(in []string) ([]rbacv1.Subject, error) {
	var out []rbacv1.Subject
	for _, s := range in {
		kind, name, _ := strings.Cut(s, ":")
		switch kind {
		case "user":
			out = append(out, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name})
		case "group":
			out = append(out, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name})
		case "serviceaccount":
			ns, sa, _ := strings.Cut(name, "/")
			out = append(out, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: sa})
		default:
			return nil, fmt.Errorf("cannot read subject %q", s)
		}
	}
	return out, nil
}
