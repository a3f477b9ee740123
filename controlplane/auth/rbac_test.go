package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"pgregory.net/rapid"
)

func TestRules(t *testing.T) {
	get := func(resource, sub, name string) authorizer.Attributes {
		return authorizer.AttributesRecord{ResourceRequest: true, Verb: "get", Resource: resource, Subresource: sub, Name: name}
	}
	url := func(p string) authorizer.Attributes { return authorizer.AttributesRecord{Verb: "get", Path: p} }
	rule := func(resources, names []string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: resources, ResourceNames: names}
	}
	urls := func(u ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: u}
	}
	for _, c := range []struct {
		rule rbacv1.PolicyRule
		a    authorizer.Attributes
		want bool
	}{
		{rule([]string{"pods"}, nil), get("pods", "", ""), true},
		{rule([]string{"pods"}, nil), get("pods", "log", ""), false},
		{rule([]string{"pods/log"}, nil), get("pods", "log", ""), true},
		{rule([]string{"pods/log"}, nil), get("pods", "", ""), false},
		{rule([]string{"*"}, nil), get("pods", "log", ""), true},
		{rule([]string{"*/scale"}, nil), get("deployments", "scale", ""), true},
		{rule([]string{"*/scale"}, nil), get("scale", "", ""), false},
		{rule([]string{"pods"}, []string{"a"}), get("pods", "", "a"), true},
		{rule([]string{"pods"}, []string{"a"}), get("pods", "", ""), false},
		{rule([]string{"pods"}, []string{"a"}), get("pods", "", "b"), false},
		{rule([]string{"*"}, nil), url("/metrics"), false},
		{urls("/metrics"), url("/metrics"), true},
		{urls("/metrics"), url("/metrics/x"), false},
		{urls("/healthz/*"), url("/healthz/etcd"), true},
		{urls("/healthz/*"), url("/healthz"), false},
		{urls("*"), url("/anything"), true},
		{urls("*"), get("pods", "", ""), false},
	} {
		if got := allows(&c.rule, c.a); got != c.want {
			t.Errorf("%+v on %+v: %v; want %v", c.rule, c.a, got, c.want)
		}
	}
}

// The index decides as a plain search through everything would, whatever came and went.
func TestIndexDecidesAsSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := NewRBAC()
		bindings := map[string]*rbacv1.RoleBinding{}
		roles := map[string]*rbacv1.Role{}
		small := func(prefix string) string { return fmt.Sprintf("%s%d", prefix, rapid.IntRange(0, 2).Draw(t, prefix)) }
		t.Repeat(map[string]func(*rapid.T){
			"role": func(t *rapid.T) {
				o := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: small("ns"), Name: small("role")},
					Rules: []rbacv1.PolicyRule{{Verbs: []string{small("verb")}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
				roles[o.Namespace+o.Name] = o
				_ = r.roles.Update(o)
			},
			"no role": func(t *rapid.T) {
				o := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: small("ns"), Name: small("role")}}
				delete(roles, o.Namespace+o.Name)
				_ = r.roles.Delete(o)
			},
			"binding": func(t *rapid.T) {
				o := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: small("ns"), Name: small("binding")},
					RoleRef: rbacv1.RoleRef{Kind: "Role", Name: small("role")}}
				for range rapid.IntRange(0, 3).Draw(t, "subjects") {
					o.Subjects = append(o.Subjects, rbacv1.Subject{Kind: rapid.SampledFrom([]string{"User", "Group", "ServiceAccount"}).Draw(t, "kind"), Name: small("s")})
				}
				bindings[o.Namespace+o.Name] = o
				_ = r.roleBindings.Add(o)
			},
			"no binding": func(t *rapid.T) {
				o := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: small("ns"), Name: small("binding")}}
				delete(bindings, o.Namespace+o.Name)
				_ = r.roleBindings.Delete(o)
			},
			"": func(t *rapid.T) {
				name := small("s")
				if rapid.Bool().Draw(t, "service account") {
					name = "system:serviceaccount:" + small("ns") + ":" + name
				}
				a := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: name, Groups: []string{small("s")}},
					Namespace: small("ns"), Verb: small("verb"), Resource: "pods", ResourceRequest: true}
				got, _, _ := r.Authorize(context.Background(), a)
				if want := search(roles, bindings, a); (got == authorizer.DecisionAllow) != want {
					t.Fatalf("%+v: %v; want allowed %v", a, got, want)
				}
			},
		})
		for ns, subjects := range r.index {
			if len(subjects) == 0 {
				t.Fatalf("index keeps %q, which is empty", ns)
			}
		}
	})
}

func search(roles map[string]*rbacv1.Role, bindings map[string]*rbacv1.RoleBinding, a authorizer.AttributesRecord) bool {
	for _, b := range bindings {
		role := roles[b.Namespace+b.RoleRef.Name]
		if b.Namespace != a.Namespace || role == nil || !allows(&role.Rules[0], a) {
			continue
		}
		if slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool {
			switch s.Kind {
			case "User":
				return s.Name == a.User.GetName()
			case "Group":
				return slices.Contains(a.User.GetGroups(), s.Name)
			}
			return "system:serviceaccount:"+b.Namespace+":"+s.Name == a.User.GetName()
		}) {
			return true
		}
	}
	return false
}

func TestBootstrapPolicy(t *testing.T) {
	p, err := BootstrapPolicy()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range p.ClusterRoles {
		if names[r.Name] {
			t.Errorf("cluster role %s twice", r.Name)
		}
		names[r.Name] = true
		if len(r.Rules) == 0 {
			t.Errorf("cluster role %s allows nothing", r.Name)
		}
	}
	for _, b := range p.ClusterRoleBindings {
		if !names[b.RoleRef.Name] {
			t.Errorf("binding %s of %s, which does not exist", b.Name, b.RoleRef.Name)
		}
		for _, s := range b.Subjects {
			if s.Name == user.AllUnauthenticated && b.Name != "system:public-info-viewer" {
				t.Errorf("binding %s gives %s to everybody", b.Name, b.RoleRef.Name)
			}
		}
	}
	for _, r := range p.ClusterRoles {
		if r.Name == "view" && slices.ContainsFunc(r.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "secrets") }) {
			t.Error("viewers can read secrets")
		}
	}
}

func TestPolicyErrorsNameTheLine(t *testing.T) {
	for _, text := range []string{"\n  get core pods", "\nclusterrole a\n  get", "\nbind a", "\nclusterrole a into", "\nbind a b who:x"} {
		if _, err := parsePolicy(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// TestReasons: a user who asks why reads by which binding and as whom, or which roles are missing; nobody has a binding twice.
func TestReasons(t *testing.T) {
	r := NewRBAC()
	subject := func(kind, namespace, name string) rbacv1.Subject {
		return rbacv1.Subject{Kind: kind, Namespace: namespace, Name: name}
	}
	_ = r.clusterRoles.Add(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}})
	ref := func(name string) rbacv1.RoleRef { return rbacv1.RoleRef{Kind: "ClusterRole", Name: name} }
	_ = r.clusterRoleBindings.Add(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: ref("reader"),
		Subjects: []rbacv1.Subject{subject("Group", "", "g"), subject("User", "", "u"), subject("ServiceAccount", "ns", "sa")}})
	_ = r.roleBindings.Add(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "local"}, RoleRef: ref("reader"),
		Subjects: []rbacv1.Subject{subject("ServiceAccount", "", "local")}})
	for _, name := range []string{"lost1", "lost2", "lost3"} {
		_ = r.clusterRoleBindings.Add(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: ref(name),
			Subjects: []rbacv1.Subject{subject("User", "", "lost")}})
	}
	for _, c := range []struct {
		user   user.DefaultInfo
		reason string
	}{
		{user.DefaultInfo{Name: "u"}, `RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "reader" to User "u"`},
		{user.DefaultInfo{Name: "u", Groups: []string{"g"}}, `RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "reader" to Group "g"`},
		{user.DefaultInfo{Name: "system:serviceaccount:ns:sa"}, `RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "reader" to ServiceAccount "sa/ns"`},
		{user.DefaultInfo{Name: "system:serviceaccount:ns:local"}, `RBAC: allowed by RoleBinding "local/ns" of ClusterRole "reader" to ServiceAccount "local/ns"`},
		{user.DefaultInfo{Name: "nobody"}, ""},
		{user.DefaultInfo{Name: "lost"}, `RBAC: [clusterrole.rbac.authorization.k8s.io "lost1" not found, clusterrole.rbac.authorization.k8s.io "lost2" not found, clusterrole.rbac.authorization.k8s.io "lost3" not found]`},
	} {
		_, reason, _ := r.Authorize(t.Context(), authorizer.AttributesRecord{User: &c.user, Namespace: "ns", Verb: "get", Resource: "pods", ResourceRequest: true})
		if reason != c.reason {
			t.Errorf("%v: %s; want %s", c.user, reason, c.reason)
		}
	}
	if rules, err := r.RulesFor(t.Context(), &user.DefaultInfo{Name: "u", Groups: []string{"g"}}, "ns"); err != nil || len(rules) != 1 {
		t.Errorf("rules of who is bound twice by one binding: %v, %v", rules, err)
	}
}

// A start waits for the rules that it wrote: what was there when the mirrors began is not all.
func TestHolds(t *testing.T) {
	p, err := BootstrapPolicy()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := NewRBAC()
		for _, replace := range []func([]any, string) error{r.roles.Replace, r.clusterRoles.Replace, r.roleBindings.Replace, r.clusterRoleBindings.Replace} {
			if err := replace(nil, ""); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Holds(ctx, p) }()
		add := func(err error) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-ended:
				t.Fatalf("it does not wait: %v", err)
			default:
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range p.ClusterRoleBindings {
			add(r.clusterRoleBindings.Add(&p.ClusterRoleBindings[i]))
		}
		for i := range p.RoleBindings {
			add(r.roleBindings.Add(&p.RoleBindings[i]))
		}
		for i := range p.Roles {
			add(r.roles.Add(&p.Roles[i]))
		}
		for i := range p.ClusterRoles[1:] {
			add(r.clusterRoles.Add(&p.ClusterRoles[i+1]))
		}
		synctest.Wait()
		if err := r.clusterRoles.Add(&p.ClusterRoles[0]); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("with all of it: %v", err)
		}
		if err := r.Holds(ctx, p); err != nil {
			t.Errorf("asked again: %v", err)
		}
		cancel()
		p.Roles[0].Name = "another"
		if err := r.Holds(ctx, p); !errors.Is(err, context.Canceled) {
			t.Errorf("at the end of the server: %v", err)
		}
	})
}
