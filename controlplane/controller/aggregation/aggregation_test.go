package aggregation

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAggregate(t *testing.T) {
	rule := func(resource string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{"get"}, Resources: []string{resource}}
	}
	mark := map[string]string{"to": "watcher"}
	own := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "watcher", Labels: mark}, Rules: []rbacv1.PolicyRule{rule("stale")},
		AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: mark}, {MatchLabels: map[string]string{"also": "1"}}}}}
	all := []*rbacv1.ClusterRole{
		{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"also": "1"}}, Rules: []rbacv1.PolicyRule{rule("pods"), rule("nodes")}},
		{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: mark}, Rules: []rbacv1.PolicyRule{rule("pods"), rule("crds")}},
		{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Rules: []rbacv1.PolicyRule{rule("secrets")}}, own,
	}
	got, err := aggregate(own, all)
	if err != nil || len(got) != 3 || got[0].Resources[0] != "pods" || got[1].Resources[0] != "crds" || got[2].Resources[0] != "nodes" {
		t.Errorf("%v, %v", got, err)
	}
	own.AggregationRule.ClusterRoleSelectors = []metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "x", Operator: "Maybe"}}}}
	if _, err := aggregate(own, all); err == nil {
		t.Error("a selector that cannot be read is accepted")
	}
}
