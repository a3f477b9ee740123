package apiserver

import (
	"context"
	"fmt"
	"net/http"

	genericapiserver "k8s.io/apiserver/pkg/server"
	serverfilters "k8s.io/apiserver/pkg/server/filters"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/controlplane/resource/flowcontrol"
)

// share divides the server among its clients by priority and fairness, so that a greedy one waits for itself.
func (s *Server) share(c *genericapiserver.Config, client kubernetes.Interface) {
	c.FlowControl = utilflowcontrol.New(s.informers, client.FlowcontrolV1(), c.MaxRequestsInFlight+c.MaxMutatingRequestsInFlight)
}

// withShares is the filter of share. What a list costs is estimated by how many objects there are.
func (s *Server) withShares(h http.Handler, c *genericapiserver.Config) http.Handler {
	estimate := request.NewWorkEstimator(s.counts.of, c.FlowControl.GetInterestedWatchCount, request.DefaultWorkEstimatorConfig(), c.FlowControl.GetMaxSeats)
	return serverfilters.WithPriorityAndFairness(h, c.LongRunningFunc, c.FlowControl, estimate, c.RequestTimeout/4)
}

// bootstrapFlows makes the built-in flow schemas and priority levels.
func bootstrapFlows(ctx context.Context, client kubernetes.Interface) error {
	var jobs []func() error
	api := client.FlowcontrolV1()
	flows, levels := flowcontrol.Bootstrap()
	for _, f := range flows {
		jobs = append(jobs, func() error {
			return ensure(ctx, f.Name, api.FlowSchemas().Get, api.FlowSchemas().Create, f)
		})
	}
	for _, l := range levels {
		jobs = append(jobs, func() error {
			return ensure(ctx, l.Name, api.PriorityLevelConfigurations().Get, api.PriorityLevelConfigurations().Create, l)
		})
	}
	if err := parallel(ctx, jobs); err != nil {
		return fmt.Errorf("flow control: %w", err)
	}
	return nil
}
