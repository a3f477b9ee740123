// Package aggregation fills ClusterRoles that have an aggregationRule with the rules of the roles that it selects.
package aggregation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

// New returns the controller; keys are ClusterRoles with an aggregationRule.
func New(d controller.Deps) (*controller.Loop, error) {
	roles := d.Informers.Rbac().V1().ClusterRoles().Informer()
	loop := controller.NewLoop("clusterrole-aggregation", d.Log, 1, func(ctx context.Context, name string) (time.Duration, error) {
		role := controller.Get[rbacv1.ClusterRole](roles, name)
		if role == nil || role.AggregationRule == nil {
			return 0, nil
		}
		rules, err := aggregate(role, list(roles))
		if err != nil || equality.Semantic.DeepEqual(role.Rules, rules) {
			return 0, err
		}
		next := role.DeepCopy()
		next.Rules = rules
		if _, err := d.Client.RbacV1().ClusterRoles().Update(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("aggregate cluster role %s: %w", name, err)
		}
		return 0, nil
	})
	return loop, errors.Join(controller.Watch(loop, roles, func(_, _ *rbacv1.ClusterRole) []string {
		var keys []string
		for _, r := range list(roles) {
			if r.AggregationRule != nil {
				keys = append(keys, r.Name)
			}
		}
		return keys
	}))
}

func list(roles cache.SharedIndexInformer) []*rbacv1.ClusterRole {
	var out []*rbacv1.ClusterRole
	for _, obj := range roles.GetIndexer().List() {
		out = append(out, obj.(*rbacv1.ClusterRole))
	}
	slices.SortFunc(out, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// aggregate collects the rules of the selected roles, selector by selector, each rule once; the role itself is left out.
// Roles are in order of their names, so that the outcome is stable.
func aggregate(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("cluster role %s: clusterRoleSelectors[%d]: %w", role.Name, i, err)
		}
		for _, other := range all {
			if other.Name == role.Name || !selector.Matches(labels.Set(other.Labels)) {
				continue
			}
			for _, rule := range other.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}
