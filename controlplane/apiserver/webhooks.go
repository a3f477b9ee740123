package apiserver

import (
	"fmt"
	"net/http"

	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"
)

// webhookAnswer is the largest answer of a webhook that is read, in bytes. A conversion's is as large as the list that it converts.
const webhookAnswer = 64 << 20

// webhookAuth lets webhooks that are this server itself be called in process, and gives others no credentials. What they answer is
// taken as a stranger's: see guardedWebhook.
func webhookAuth(loopback *rest.Config) webhook.AuthenticationInfoResolverWrapper {
	wrap := webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, loopback, noop.NewTracerProvider())
	guard := func(c *rest.Config, err error) (*rest.Config, error) {
		if err != nil {
			return nil, err
		}
		c = rest.CopyConfig(c)
		c.Wrap(func(next http.RoundTripper) http.RoundTripper { return guardedWebhook{next} })
		return c, nil
	}
	return func(r webhook.AuthenticationInfoResolver) webhook.AuthenticationInfoResolver {
		inner := wrap(r)
		return &webhook.AuthenticationInfoResolverDelegator{
			ClientConfigForFunc: func(host string) (*rest.Config, error) { return guard(inner.ClientConfigFor(host)) },
			ClientConfigForServiceFunc: func(name, namespace string, port int) (*rest.Config, error) {
				return guard(inner.ClientConfigForService(name, namespace, port))
			},
		}
	}
}

// guardedWebhook follows no redirect, by which a webhook could make this server speak to what only it can reach (CVE-2020-8561),
// and reads no more than a webhook may have to say.
type guardedWebhook struct{ next http.RoundTripper }

func (g guardedWebhook) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		resp.Body.Close()
		return nil, fmt.Errorf("the webhook answers with a redirect (%s), which is not followed", resp.Status)
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, webhookAnswer)
	return resp, nil
}
