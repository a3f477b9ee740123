package apiserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericrest "k8s.io/apiserver/pkg/registry/generic/rest"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// podLog serves pods/log: bytes from the kubelet as they come.
type podLog struct{ kubelets *kubelets }

var _ rest.GetterWithOptions = podLog{}

func (podLog) New() runtime.Object { return &corev1.Pod{} }
func (podLog) Destroy()            {}

// ProducesMIMETypes and ProducesObject describe the answer in OpenAPI.
func (podLog) ProducesMIMETypes(string) []string { return []string{"text/plain"} }
func (podLog) ProducesObject(string) any         { return "" }

func (podLog) NewGetOptions() (runtime.Object, bool, string) {
	return &corev1.PodLogOptions{}, false, ""
}

func (p podLog) Get(ctx context.Context, name string, options runtime.Object) (runtime.Object, error) {
	o := options.(*corev1.PodLogOptions)
	if errs := validateLogOptions(o); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), name, errs)
	}
	pod, container, err := p.kubelets.container(ctx, name, o.Container)
	if err != nil {
		return nil, err
	}
	transport := p.kubelets.kubelet
	if o.InsecureSkipTLSVerifyBackend {
		transport = p.kubelets.unverified
	}
	stream := logStream{&genericrest.LocationStreamer{
		Transport: transport, ContentType: "text/plain", Flush: o.Follow,
		ResponseChecker: genericrest.NewGenericHttpResponseChecker(corev1.Resource("pods/log"), name),
		RedirectChecker: genericrest.PreventRedirects,
	}}
	if pod.Spec.NodeName == "" {
		return stream, nil // nothing has run: an empty log
	}
	if stream.Location, err = p.kubelets.location(ctx, pod, "containerLogs", container, logQuery(o)); err != nil {
		return nil, err
	}
	return stream, nil
}

// logStream is a log whose end never comes with its last bytes: the library, which copies a log to a websocket, drops those.
type logStream struct{ *genericrest.LocationStreamer }

func (s logStream) InputStream(ctx context.Context, apiVersion, accept string) (io.ReadCloser, bool, string, error) {
	stream, flush, contentType, err := s.LocationStreamer.InputStream(ctx, apiVersion, accept)
	if stream != nil {
		stream = endApart{stream}
	}
	return stream, flush, contentType, err
}

// endApart reads as its reader does, but reports the end on a read of its own.
type endApart struct{ io.ReadCloser }

func (r endApart) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 && err == io.EOF {
		err = nil // the next read says so again
	}
	return n, err
}

func validateLogOptions(o *corev1.PodLogOptions) field.ErrorList {
	var errs field.ErrorList
	if o.TailLines != nil && *o.TailLines < 0 {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *o.TailLines, "must be greater than or equal to 0"))
	}
	if o.LimitBytes != nil && *o.LimitBytes < 1 {
		errs = append(errs, field.Invalid(field.NewPath("limitBytes"), *o.LimitBytes, "must be greater than 0"))
	}
	switch {
	case o.SinceSeconds != nil && o.SinceTime != nil:
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		errs = append(errs, field.Invalid(field.NewPath("sinceSeconds"), *o.SinceSeconds, "must be greater than 0"))
	}
	if o.Stream != nil { // PodLogsQuerySplitStreams, which is off
		errs = append(errs, field.Forbidden(field.NewPath("stream"), "may not be specified"))
	}
	return errs
}

func logQuery(o *corev1.PodLogOptions) url.Values {
	q := url.Values{}
	flag := func(name string, on bool) {
		if on {
			q.Set(name, "true")
		}
	}
	number := func(name string, n *int64) {
		if n != nil {
			q.Set(name, strconv.FormatInt(*n, 10))
		}
	}
	flag("follow", o.Follow)
	flag("previous", o.Previous)
	flag("timestamps", o.Timestamps)
	number("sinceSeconds", o.SinceSeconds)
	number("tailLines", o.TailLines)
	number("limitBytes", o.LimitBytes)
	if o.SinceTime != nil {
		q.Set("sinceTime", o.SinceTime.Format(time.RFC3339))
	}
	return q
}

// podStream serves pods/exec, pods/attach and pods/portforward: a connection that both sides keep open.
type podStream struct {
	kubelets *kubelets
	may      func() authorizer.Authorizer
	verb     string // the kubelet's path: exec, attach, portForward
	options  func() runtime.Object
}

var _ rest.Connecter = podStream{}

// New is what discovery calls the kind, and what admission is shown: the options, not the pod.
func (s podStream) New() runtime.Object                               { return s.options() }
func (podStream) Destroy()                                            {}
func (podStream) ConnectMethods() []string                            { return []string{http.MethodGet, http.MethodPost} }
func (s podStream) NewConnectOptions() (runtime.Object, bool, string) { return s.options(), false, "" }

// Connect returns the proxy to the kubelet. WebSocket clients are translated to the SPDY streams that an older kubelet speaks
// (exec, attach) or tunnelled (portforward), unless the node declares that it does that itself; SPDY clients pass through.
func (s podStream) Connect(ctx context.Context, name string, options runtime.Object, r rest.Responder) (http.Handler, error) {
	if err := s.mayCreate(ctx, name); err != nil {
		return nil, err
	}
	target, query, streams := streamTarget(options)
	var pod *corev1.Pod
	var err error
	container := ""
	if s.verb == "portForward" {
		pod, err = s.kubelets.objects.Pod(ctx, apirequest.NamespaceValue(ctx), name, false)
	} else {
		pod, container, err = s.kubelets.container(ctx, name, target)
	}
	if err != nil {
		return nil, err
	}
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", name))
	}
	location, err := s.kubelets.location(ctx, pod, s.verb, container, query)
	if err != nil {
		return nil, err
	}
	pass := utilproxy.NewUpgradeAwareHandler(location, s.kubelets.kubelet, false, true, utilproxy.NewErrorResponder(r))
	if s.kubelets.speaksWebSocket(ctx, pod.Spec.NodeName) {
		return pass, nil
	}
	if s.verb == "portForward" {
		return proxy.NewTranslatingHandler(pass, proxy.NewTunnelingHandler(pass), wsstream.IsWebSocketRequestWithTunnelingProtocol), nil
	}
	translate := proxy.NewStreamTranslatorHandler(location, s.kubelets.kubelet, 0, streams)
	return proxy.NewTranslatingHandler(pass, translate, wsstream.IsWebSocketRequestWithStreamCloseProtocol), nil
}

// mayCreate asks for the right to create, whatever the method: a WebSocket begins with GET, and who may only get pods
// must not run commands in them by that.
func (s podStream) mayCreate(ctx context.Context, name string) error {
	a, err := filters.GetAuthorizerAttributes(ctx)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if a.GetVerb() == "create" {
		return nil
	}
	decision, reason, err := s.may().Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUser(), Verb: "create", Namespace: a.GetNamespace(), APIGroup: a.GetAPIGroup(), APIVersion: a.GetAPIVersion(),
		Resource: a.GetResource(), Subresource: a.GetSubresource(), Name: name, ResourceRequest: true,
	})
	if decision == authorizer.DecisionAllow && err == nil {
		return nil
	}
	return apierrors.NewForbidden(corev1.Resource(a.GetResource()+"/"+a.GetSubresource()), name,
		fmt.Errorf("user %q cannot create %s/%s: %s", a.GetUser().GetName(), a.GetResource(), a.GetSubresource(), reason))
}

// streamTarget reads the options: the container, the query for the kubelet, the streams for a translator.
func streamTarget(options runtime.Object) (container string, q url.Values, o proxy.Options) {
	q = url.Values{}
	switch v := options.(type) {
	case *corev1.PodExecOptions:
		container, o = v.Container, proxy.Options{Stdin: v.Stdin, Stdout: v.Stdout, Stderr: v.Stderr, Tty: v.TTY}
		q["command"] = v.Command
	case *corev1.PodAttachOptions:
		container, o = v.Container, proxy.Options{Stdin: v.Stdin, Stdout: v.Stdout, Stderr: v.Stderr, Tty: v.TTY}
	case *corev1.PodPortForwardOptions:
		for _, p := range v.Ports {
			q.Add("port", strconv.Itoa(int(p)))
		}
		return "", q, o
	}
	for name, on := range map[string]bool{"input": o.Stdin, "output": o.Stdout, "error": o.Stderr, "tty": o.Tty} {
		if on {
			q.Set(name, "1")
		}
	}
	return container, q, o
}

// container finds a pod and the container that is meant; a pod's only one need not be named.
func (k *kubelets) container(ctx context.Context, pod, container string) (*corev1.Pod, string, error) {
	p, err := k.objects.Pod(ctx, apirequest.NamespaceValue(ctx), pod, true)
	if err != nil {
		return nil, "", err
	}
	names := func(n int, at func(int) string) []string {
		var out []string
		for i := range n {
			out = append(out, at(i))
		}
		return out
	}
	main := names(len(p.Spec.Containers), func(i int) string { return p.Spec.Containers[i].Name })
	init := names(len(p.Spec.InitContainers), func(i int) string { return p.Spec.InitContainers[i].Name })
	ephemeral := names(len(p.Spec.EphemeralContainers), func(i int) string { return p.Spec.EphemeralContainers[i].Name })
	if container == "" {
		if len(main) == 1 && len(init) == 0 {
			return p, main[0], nil
		}
		if d := p.Annotations["kubectl.kubernetes.io/default-container"]; d == "" && len(main) == 1 {
			return p, main[0], nil
		}
		msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod, strings.Join(main, " "))
		if len(init) > 0 {
			msg += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(init, " "))
		}
		if len(ephemeral) > 0 {
			msg += fmt.Sprintf(" or one of the ephemeral containers: [%s]", strings.Join(ephemeral, " "))
		}
		return nil, "", apierrors.NewBadRequest(msg)
	}
	if !slices.Contains(slices.Concat(main, init, ephemeral), container) {
		return nil, "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", container, pod))
	}
	return p, container, nil
}

// location is a path on the kubelet of a pod's node.
func (k *kubelets) location(ctx context.Context, pod *corev1.Pod, verb, container string, q url.Values) (*url.URL, error) {
	u, err := k.at(ctx, pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	u.Path = "/" + verb + "/" + pod.Namespace + "/" + pod.Name
	if container != "" {
		u.Path += "/" + container
	}
	u.RawQuery = q.Encode()
	return u, nil
}
