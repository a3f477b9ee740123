package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
)

// Delegated asks the API server who a caller is (client certificates of clientCA are checked here) and what it may.
// Answers are kept for two and five minutes, refusals for thirty seconds. clientCA is a PEM bundle, empty for none.
func Delegated(client kubernetes.Interface, clientCA []byte) (authenticator.Request, authorizer.Authorizer, error) {
	backoff := &wait.Backoff{Duration: 100 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 4}
	authn := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient: client.AuthenticationV1(), TokenAccessReviewTimeout: 10 * time.Second,
		WebhookRetryBackoff: backoff, CacheTTL: 2 * time.Minute,
	}
	if len(clientCA) > 0 {
		ca, err := dynamiccertificates.NewStaticCAContent("kubelet-client-ca", clientCA)
		if err != nil {
			return nil, nil, err
		}
		authn.ClientCertificateCAContentProvider = ca
	}
	who, _, err := authn.New()
	if err != nil {
		return nil, nil, err
	}
	may, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: client.AuthorizationV1(), WebhookRetryBackoff: backoff,
		AllowCacheTTL: 5 * time.Minute, DenyCacheTTL: 30 * time.Second,
	}.New()
	if err != nil {
		return nil, nil, err
	}
	// Administrators are not asked about: they must reach a node whose API server is in trouble.
	return who, authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if slices.Contains(a.GetUser().GetGroups(), user.SystemPrivilegedGroup) {
			return authorizer.DecisionAllow, "", nil
		}
		return may.Authorize(ctx, a)
	}), nil
}

// rights are the subresources of the node of which any one, with the verb, lets a request pass.
type rights struct {
	verb         string
	subresources []string
}

// needs says what a request must be allowed to do. It is pure.
func needs(method, path string) rights {
	verb := map[string]string{
		http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
	}[method]
	if verb == "" {
		verb = "get"
	}
	at := func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
	for prefix, sub := range map[string]string{
		"/exec": "exec", "/attach": "attach", "/run": "run", "/portForward": "portforward", "/cri": "exec",
	} {
		if at(prefix) {
			return rights{"create", []string{sub, "proxy"}}
		}
	}
	switch {
	case at("/stats"):
		return rights{verb, []string{"stats"}}
	case at("/metrics"):
		return rights{verb, []string{"metrics"}}
	case at("/logs"):
		return rights{verb, []string{"log"}}
	case at("/checkpoint"):
		return rights{verb, []string{"checkpoint"}}
	case at("/healthz"):
		return rights{verb, []string{"healthz", "proxy"}}
	case at("/configz"):
		return rights{verb, []string{"configz", "proxy"}}
	case at("/pods"), at("/runningpods"):
		return rights{verb, []string{"pods", "proxy"}}
	}
	return rights{verb, []string{"proxy"}}
}

// guard lets only those through who are known and allowed to.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok, err := s.cfg.Authn.AuthenticateRequest(r)
		if err != nil || !ok {
			if err != nil {
				s.cfg.Log.Info("request refused: not authenticated", "path", r.URL.Path, "err", err)
			}
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		need := needs(r.Method, r.URL.Path)
		var errs []error
		for _, sub := range need.subresources {
			decision, _, err := s.cfg.Authz.Authorize(r.Context(), authorizer.AttributesRecord{
				User: who.User, Verb: need.verb, APIVersion: "v1", Resource: "nodes", Subresource: sub,
				Name: s.cfg.Node, ResourceRequest: true, Path: r.URL.Path,
			})
			if decision == authorizer.DecisionAllow {
				next.ServeHTTP(w, r)
				return
			}
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			s.cfg.Log.Warn("request refused: authorization failed", "path", r.URL.Path, "user", who.User.GetName(), "err", err)
			http.Error(w, "Authorization error", http.StatusInternalServerError)
			return
		}
		http.Error(w, "Forbidden (user="+who.User.GetName()+", verb="+need.verb+", resource=nodes, subresource(s)="+
			strings.Join(need.subresources, ",")+")", http.StatusForbidden)
	})
}
