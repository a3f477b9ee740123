package act

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
)

// hookClient calls hooks in pods. Certificates are not checked (documented so for probes and hooks: a pod's own
// certificate proves nothing to its node) and connections are not kept. Redirects are not followed: a pod must not
// steer the node's requests elsewhere (HOSTILE PS15).
var hookClient = &http.Client{
	Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, Proxy: nil,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// killSlack is added to the time that a runtime gets beyond the grace period, for the kill itself.
const killSlack = 2 * time.Minute

// Stopping says how a container is stopped.
type Stopping struct {
	Grace  time.Duration // for the hook and the container's own end together
	Reason string        // as the event says it; "" for no event
	// Again: an earlier stop was under way and is overtaken by a sooner one. The event was told and the hook begun.
	Again bool
}

// Stop runs the pre-stop hook and then stops the container: signal, and kill when grace is over. Grace covers both;
// the container gets at least two seconds after the hook. Stopping what is already dead is no error.
func (e *Executor) Stop(ctx context.Context, pod *corev1.Pod, c observe.Container, ips []string, how Stopping) error {
	grace := how.Grace
	if how.Reason != "" && !how.Again {
		e.ContainerEvent(pod, c.Name, corev1.EventTypeNormal, "Killing", "%s", how.Reason)
	}
	begin := time.Now()
	if spec := plan.Find(pod, c.Name); spec != nil && spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil && grace > 0 && !how.Again {
		err := e.hook(ctx, ips, spec, c.ID, spec.Lifecycle.PreStop, grace)
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return ctx.Err() // a sooner stop takes over
		}
		if err != nil {
			e.ContainerEvent(pod, c.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %s", criclient.Message(err))
		}
	}
	left := max(grace-time.Since(begin), 2*time.Second)
	ctx, cancel := context.WithTimeout(ctx, left+killSlack)
	defer cancel()
	_, err := e.CRI.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{
		ContainerId: c.ID, Timeout: int64((left + time.Second - 1) / time.Second),
	})
	if err != nil {
		return fmt.Errorf("stop container %s (%s): %w", c.Name, c.ID, err)
	}
	return nil
}
