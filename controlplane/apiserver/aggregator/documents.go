package aggregator

import (
	"net/http"

	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/controlplane/apiserver/openapi"
)

// reader is who asks other servers for their documents.
var reader = &user.DefaultInfo{Name: "system:aggregator", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// Sources are where the OpenAPI documents of other servers' group versions are had. Those that do not answer have none.
func (a *Aggregator) Sources() []openapi.Source {
	var out []openapi.Source
	for gv, t := range a.routes.Load().remote {
		if !t.available {
			continue
		}
		out = append(out, openapi.Source{Path: "apis/" + gv.Group + "/" + gv.Version, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			t.ServeHTTP(w, req.WithContext(apirequest.WithUser(req.Context(), reader)))
		})})
	}
	return out
}
