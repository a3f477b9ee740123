package apiserver

import (
	"net/http"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// present gives the OpenAPI documents what all have: what they are of, how one is let in, and what one hears who is not.
func present(c2 *common.Config, c3 *common.OpenAPIV3Config) {
	const unauthorized, scheme = "Unauthorized", "BearerToken"
	c2.Info.Title, c2.Info.Version = "Kubernetes", "v1.37.2"
	c3.Info.Title, c3.Info.Version = c2.Info.Title, c2.Info.Version
	c2.CommonResponses = map[int]spec.Response{http.StatusUnauthorized: {ResponseProps: spec.ResponseProps{Description: unauthorized}}}
	c3.CommonResponses = map[int]*spec3.Response{http.StatusUnauthorized: {ResponseProps: spec3.ResponseProps{Description: unauthorized}}}
	token := spec.SecuritySchemeProps{Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}
	c2.SecurityDefinitions = &spec.SecurityDefinitions{scheme: {SecuritySchemeProps: token}}
	c2.DefaultSecurity = []map[string][]string{{scheme: {}}}
	c3.SecuritySchemes = spec3.SecuritySchemes{scheme: {SecuritySchemeProps: spec3.SecuritySchemeProps{
		Type: token.Type, Name: token.Name, In: token.In, Description: token.Description}}}
}
