package act

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
)

// httpHookTimeout bounds an HTTP hook that has no other bound.
const httpHookTimeout = 30 * time.Second

// postStart runs the hook; its failure kills the container, as documented for lifecycle hooks.
func (e *Executor) postStart(ctx context.Context, t Target, c *corev1.Container, id string) error {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	err := e.hook(ctx, t.IPs, c, id, c.Lifecycle.PostStart, 0)
	if err == nil {
		return nil
	}
	e.ContainerEvent(t.Pod, c.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %s", criclient.Message(err))
	stop := observe.Container{ID: id, Name: c.Name}
	if kill := e.Stop(context.WithoutCancel(ctx), t.Pod, stop, t.IPs, Stopping{Grace: 2 * time.Second, Reason: "FailedPostStartHook"}); kill != nil {
		e.Log.Warn("kill container after failed post-start hook", "container", id, "err", kill)
	}
	return &Error{"PostStartHookError", err}
}

// hook runs one lifecycle handler. limit bounds it, zero for no bound of its own.
func (e *Executor) hook(ctx context.Context, ips []string, c *corev1.Container, id string, h *corev1.LifecycleHandler, limit time.Duration) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	switch {
	case h.Exec != nil:
		res, err := e.CRI.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{
			ContainerId: id, Cmd: h.Exec.Command, Timeout: int64(limit.Seconds()),
		})
		if err != nil {
			return err
		}
		if res.GetExitCode() != 0 {
			return fmt.Errorf("command exited with code %d", res.GetExitCode())
		}
		return nil
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		}
	case h.HTTPGet != nil:
		return httpHook(ctx, ips, c, h.HTTPGet)
	case h.TCPSocket != nil:
		return fmt.Errorf("a tcpSocket lifecycle handler is not supported by Kubernetes")
	}
	return fmt.Errorf("lifecycle handler names no action")
}

func httpHook(ctx context.Context, ips []string, c *corev1.Container, get *corev1.HTTPGetAction) error {
	ctx, cancel := context.WithTimeout(ctx, httpHookTimeout)
	defer cancel()
	host := get.Host
	if host == "" {
		if len(ips) == 0 {
			return fmt.Errorf("the pod has no address for its HTTP hook")
		}
		host = ips[0]
	}
	port, err := Port(get.Port, c)
	if err != nil {
		return err
	}
	scheme := "http"
	if get.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	path := get.Path
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, strconv.Itoa(port))+path, nil)
	if err != nil {
		return err
	}
	for _, h := range get.HTTPHeaders {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
		} else {
			req.Header.Add(h.Name, h.Value)
		}
	}
	res, err := hookClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 10<<10))
	if res.StatusCode >= 400 {
		return fmt.Errorf("HTTP hook answered %s", res.Status)
	}
	return nil
}

// Port resolves a port by number or by its name in the container.
func Port(p intstr.IntOrString, c *corev1.Container) (int, error) {
	if p.Type == intstr.Int {
		if p.IntValue() < 1 || p.IntValue() > 65535 {
			return 0, fmt.Errorf("port %d is out of range", p.IntValue())
		}
		return p.IntValue(), nil
	}
	for _, q := range c.Ports {
		if q.Name == p.StrVal {
			return int(q.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %q has no port named %q", c.Name, p.StrVal)
}
