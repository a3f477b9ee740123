package apiserver

import (
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverfilters "k8s.io/apiserver/pkg/server/filters"
)

// longRunning requests have no deadline and do not count against the limits of requests in flight.
var longRunning = serverfilters.BasicLongRunningRequestCheck(
	sets.NewString("watch", "proxy"),
	sets.NewString("attach", "exec", "proxy", "log", "portforward"))

// chain wraps the API in what every request passes. Order, from the outside in, matters:
// a panic is caught everywhere; request info comes before anything that asks what is requested; the deadline covers
// everything after it; who precedes the log precedes impersonation precedes limits precedes may-it, so that a refused request costs little.
func (s *Server) chain(api http.Handler, c *genericapiserver.Config) http.Handler {
	inner := s.innerChain(api, c)
	local := serverfilters.WithPanicRecovery(inner, c.RequestInfoResolver)
	local = filters.WithRequestInfo(local, c.RequestInfoResolver)
	local = filters.WithRequestReceivedTimestamp(local)
	s.loopback.handler.Store(ptr(filters.WithAuditInit(local)))

	h := serverfilters.WithTimeoutForNonLongRunningRequests(inner, c.LongRunningFunc)
	h = filters.WithRequestDeadline(h, nil, nil, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	h = serverfilters.WithWaitGroup(h, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	h = filters.WithCacheControl(h)
	h = filters.WithRequestInfo(h, c.RequestInfoResolver)
	h = serverfilters.WithPanicRecovery(h, c.RequestInfoResolver)
	h = filters.WithRequestReceivedTimestamp(h)
	return filters.WithAuditInit(h) // the library writes into the audit context, audited or not
}

// innerChain is shared by requests from the network and from this process.
func (s *Server) innerChain(api http.Handler, c *genericapiserver.Config) http.Handler {
	h := filters.WithAuthorization(withMisfits(s.aggregator.Wrap(s.withGroupList(s.withObjectCounts(s.withoutProtobuf(api))))), c.Authorization.Authorizer, c.Serializer)
	h = s.withShares(h, c)
	h = impersonation.WithConstrainedImpersonation(h, c.Authorization.Authorizer, c.Serializer)
	h = filters.WithAudit(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc)
	refuse := filters.WithFailedAuthenticationAudit(filters.Unauthorized(c.Serializer), c.AuditBackend, c.AuditPolicyRuleEvaluator)
	h = filters.WithAuthentication(h, c.Authentication.Authenticator, refuse, c.Authentication.APIAudiences, c.Authentication.RequestHeaderConfig)
	h = filters.WithWarningRecorder(h)
	h = filters.WithLatencyTrackers(h) // apiserver_request_sli_duration_seconds: what a request took without webhooks and waiting
	// Until definitions and APIServices are known, a path that they add is "unavailable": "not found" would be taken for deleted.
	return filters.WithMuxAndDiscoveryComplete(h, s.ready)
}

// resolver takes a path that names no resource (/api/v1/watch) for one that is not there, where the library answers with an internal error.
type resolver struct{ apirequest.RequestInfoResolver }

// NewRequestInfo implements apirequest.RequestInfoResolver.
func (r resolver) NewRequestInfo(req *http.Request) (*apirequest.RequestInfo, error) {
	info, err := r.RequestInfoResolver.NewRequestInfo(req)
	if err != nil {
		return &apirequest.RequestInfo{Path: req.URL.Path, Verb: strings.ToLower(req.Method)}, nil
	}
	return info, nil
}

var _ apirequest.LongRunningRequestCheck = longRunning

func ptr[T any](v T) *T { return &v }
