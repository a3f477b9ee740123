package apiserver

import (
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
)

// withGroupList answers the plain form of /apis as upstream's aggregator does, which is in front of the library's handler there:
// with the list's apiVersion, by which readers of any object tell what they have, and without addresses of each group's server.
func (s *Server) withGroupList(next http.Handler) http.Handler {
	plain := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		groups, err := s.generic.DiscoveryGroupManager.Groups(req.Context(), req)
		if err != nil {
			responsewriters.InternalError(w, req, err)
			return
		}
		for i := range groups {
			groups[i].ServerAddressByClientCIDRs = nil
		}
		responsewriters.WriteObjectNegotiated(aggregatorscheme.Codecs, negotiation.DefaultEndpointRestrictions,
			schema.GroupVersion{}, w, req, http.StatusOK, &metav1.APIGroupList{Groups: groups}, false)
	})
	either := aggregated.WrapAggregatedDiscoveryToHandler(plain, next, next)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if path := req.URL.Path; req.Method == http.MethodGet && (path == "/apis" || path == "/apis/") {
			either.ServeHTTP(w, req)
			return
		}
		next.ServeHTTP(w, req)
	})
}
