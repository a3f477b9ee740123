package aggregator

import (
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
)

// routes say where requests go. They are made anew for every change and never changed.
type routes struct {
	// remote are the group versions that others serve.
	remote map[schema.GroupVersion]*target
	// groups are the groups of which others serve a version, with all versions, the preferred one first.
	groups map[string]metav1.APIGroup
}

// newRoutes keeps the targets of old whose APIServices are the same, with their connections.
func newRoutes(services []*apiregistrationv1.APIService, old *routes, make func(*apiregistrationv1.APIService) *target) *routes {
	r := &routes{remote: map[schema.GroupVersion]*target{}, groups: map[string]metav1.APIGroup{}}
	for _, s := range services {
		if s.Spec.Service == nil {
			continue
		}
		gv := groupVersion(s)
		if t := old.remote[gv]; t != nil && t.is(s) {
			r.remote[gv] = t.with(s)
		} else {
			r.remote[gv] = make(s)
		}
		r.groups[gv.Group] = metav1.APIGroup{}
	}
	for _, versions := range helper.SortedByGroupAndVersion(append([]*apiregistrationv1.APIService(nil), services...)) {
		group := versions[0].Spec.Group
		if _, ok := r.groups[group]; ok {
			r.groups[group] = describe(group, versions)
		}
	}
	return r
}

func groupVersion(s *apiregistrationv1.APIService) schema.GroupVersion {
	return schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}
}

func describe(group string, versions []*apiregistrationv1.APIService) metav1.APIGroup {
	g := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: group}
	for _, v := range versions {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: groupVersion(v).String(), Version: v.Spec.Version})
	}
	g.PreferredVersion = g.Versions[0]
	return g
}

// find returns who answers a path: another server, a group's description, or (nil, nil) this server itself.
func (r *routes) find(path string) (http.Handler, *metav1.APIGroup) {
	if len(r.remote) == 0 {
		return nil, nil
	}
	rest, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		return nil, nil
	}
	group, rest, _ := strings.Cut(rest, "/")
	version, _, _ := strings.Cut(rest, "/")
	if version == "" {
		if g, ok := r.groups[group]; ok {
			return nil, &g
		}
		return nil, nil
	}
	if t := r.remote[schema.GroupVersion{Group: group, Version: version}]; t != nil {
		return t, nil
	}
	return nil, nil
}

// Versions of a group that others serve.
func (a *Aggregator) Versions(group string) []string {
	var out []string
	for gv := range a.routes.Load().remote {
		if gv.Group == group {
			out = append(out, gv.Version)
		}
	}
	return out
}
