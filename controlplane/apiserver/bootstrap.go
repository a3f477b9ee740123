package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	typednetworkingv1 "k8s.io/client-go/kubernetes/typed/networking/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/retry"

	"keelson.dev/keelson/controlplane/resource/scheduling"
)

// namespaces that every cluster has.
var namespaces = []string{"default", "kube-system", "kube-public", "kube-node-lease"}

// bootstrap makes the objects without which a cluster is not one. It runs at every start and on every server: each
// step looks first, and losing a race to another server is success.
func (s *Server) bootstrap(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.loopback.config(systemUser))
	if err != nil {
		return err
	}
	jobs := make([]func() error, len(namespaces))
	for i, name := range namespaces {
		jobs[i] = func() error {
			return ensure(ctx, name, client.CoreV1().Namespaces().Get, client.CoreV1().Namespaces().Create,
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
	}
	if err := parallel(ctx, jobs); err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}
	if s.stores[corev1.Resource("services")] != nil {
		if err := s.publishService(ctx, client); err != nil {
			return err
		}
	}
	return parallel(ctx, []func() error{
		func() error { return bootstrapRBAC(ctx, client, s.authz.rbac) },
		func() error { return s.publishAuthentication(ctx, client) },
		func() error { return s.publishEndpoint(ctx, client) },
		func() error { return s.publishClusterInfo(ctx, client) },
		func() error { return s.bootstrapCluster(ctx, client) },
		func() error { return bootstrapFlows(ctx, client) },
	})
}

// passing tells errors of a store or a server that is slow: each step may be tried again, and ending the process would make the machine slower.
func passing(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && (status.Status().Code >= http.StatusInternalServerError || apierrors.IsTooManyRequests(err)) ||
		errors.Is(err, context.DeadlineExceeded)
}

// bootstrapCluster makes the cluster-wide objects that belong to no component.
func (s *Server) bootstrapCluster(ctx context.Context, client kubernetes.Interface) error {
	for _, c := range scheduling.System() {
		classes := client.SchedulingV1().PriorityClasses()
		if err := ensure(ctx, c.Name, classes.Get, classes.Create, c); err != nil {
			return fmt.Errorf("priority class: %w", err)
		}
	}
	// Since when tokens in Secrets are watched for: here always, as none are made.
	maps := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	tracking := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-apiserver-legacy-service-account-token-tracking"},
		Data: map[string]string{"since": time.Now().UTC().Format(time.DateOnly)}}
	if err := ensure(ctx, tracking.Name, maps.Get, maps.Create, tracking); err != nil {
		return err
	}
	return s.publishServiceCIDR(ctx, client.NetworkingV1().ServiceCIDRs())
}

// publishServiceCIDR makes the object of the configured ranges, or gives it the second one that a cluster of one family has got.
func (s *Server) publishServiceCIDR(ctx context.Context, ranges typednetworkingv1.ServiceCIDRInterface) error {
	want := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}
	for _, p := range s.cfg.ServiceCIDRs {
		want.Spec.CIDRs = append(want.Spec.CIDRs, p.String())
	}
	if err := ensure(ctx, want.Name, ranges.Get, ranges.Create, want); err != nil {
		return err
	}
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		have, err := ranges.Get(ctx, want.Name, metav1.GetOptions{})
		if err != nil || slices.Equal(have.Spec.CIDRs, want.Spec.CIDRs) {
			return err
		}
		if len(have.Spec.CIDRs) > 1 || have.Spec.CIDRs[0] != want.Spec.CIDRs[0] {
			s.log.Warn("the ServiceCIDR kubernetes is not of the configured ranges: delete it once others hold its addresses", "has", have.Spec.CIDRs, "configured", want.Spec.CIDRs)
			return nil
		}
		have.Spec.CIDRs = want.Spec.CIDRs
		_, err = ranges.Update(ctx, have, metav1.UpdateOptions{})
		return err
	})
}

// ensure creates an object that does not exist.
func ensure[T any](ctx context.Context, name string, get func(context.Context, string, metav1.GetOptions) (T, error),
	create func(context.Context, T, metav1.CreateOptions) (T, error), obj T) error {
	if _, err := get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	if _, err := create(ctx, obj, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

// parallel runs the jobs a few at a time: each waits for the disk, and waiting together shares its syncs.
func parallel(ctx context.Context, jobs []func() error) error {
	g, _ := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for _, j := range jobs {
		g.Go(j)
	}
	return g.Wait()
}

// publishAuthentication tells extension API servers whose certificates and headers to believe.
func (s *Server) publishAuthentication(ctx context.Context, client kubernetes.Interface) error {
	list := func(v ...string) string { b, _ := json.Marshal(v); return string(b) }
	data := map[string]string{
		"client-ca-file":                     string(s.pki.CA.PEM),
		"requestheader-client-ca-file":       string(s.pki.FrontProxy.PEM),
		"requestheader-allowed-names":        list("front-proxy-client"),
		"requestheader-username-headers":     list("X-Remote-User"),
		"requestheader-uid-headers":          list("X-Remote-Uid"),
		"requestheader-group-headers":        list("X-Remote-Group"),
		"requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
	}
	return publish(ctx, client.CoreV1().ConfigMaps("kube-system"), "extension-apiserver-authentication", data, false)
}

// publishClusterInfo tells new nodes where the API is and whose certificates to believe, in kubeadm's form. The bootstrap
// signer adds its signatures to it.
func (s *Server) publishClusterInfo(ctx context.Context, client kubernetes.Interface) error {
	if s.cfg.AdvertiseAddress.IsLoopback() {
		return nil // nobody elsewhere reaches it
	}
	c := clientcmdapi.NewConfig()
	c.Clusters[""] = &clientcmdapi.Cluster{CertificateAuthorityData: s.pki.CA.PEM,
		Server: "https://" + netip.AddrPortFrom(s.cfg.AdvertiseAddress, uint16(s.cfg.Port)).String()}
	text, err := clientcmd.Write(*c)
	if err != nil {
		return fmt.Errorf("cluster-info: %w", err)
	}
	return publish(ctx, client.CoreV1().ConfigMaps(metav1.NamespacePublic), "cluster-info", map[string]string{"kubeconfig": string(text)}, true)
}

// publish makes a ConfigMap have the data; others: what others have added stays.
func publish(ctx context.Context, maps typedcorev1.ConfigMapInterface, name string, data map[string]string, others bool) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		have, err := maps.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return apierrors.NewConflict(corev1.Resource("configmaps"), name, err)
			}
		case err == nil && !sameData(have.Data, data):
			have = have.DeepCopy()
			if have.Data == nil || !others {
				have.Data = map[string]string{}
			}
			for k, v := range data {
				have.Data[k] = v
			}
			_, err = maps.Update(ctx, have, metav1.UpdateOptions{})
		}
		return err
	})
}

func sameData(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// publishService makes the kubernetes Service, by which pods reach the API.
func (s *Server) publishService(ctx context.Context, client kubernetes.Interface) error {
	ip := s.cfg.serviceIP().String()
	return ensure(ctx, "kubernetes", client.CoreV1().Services("default").Get, client.CoreV1().Services("default").Create, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Labels: map[string]string{"provider": "kubernetes", "component": "apiserver"}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt(s.cfg.Port)}},
		},
	})
}

// publishEndpoint adds this server to those behind the kubernetes Service.
func (s *Server) publishEndpoint(ctx context.Context, client kubernetes.Interface) error {
	addr := s.cfg.AdvertiseAddress
	if addr.IsLoopback() {
		s.log.Warn("the API is at a loopback address: pods cannot reach it by the kubernetes Service", "address", addr)
		return nil
	}
	typ := discoveryv1.AddressTypeIPv4
	if addr.Is6() {
		typ = discoveryv1.AddressTypeIPv6
	}
	endpoints := client.DiscoveryV1().EndpointSlices("default")
	return retry.OnError(retry.DefaultRetry, func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }, func() error {
		have, err := endpoints.Get(ctx, "kubernetes", metav1.GetOptions{})
		create := apierrors.IsNotFound(err)
		if err != nil && !create {
			return err
		}
		if create {
			have, err = endpoints.Create(ctx, newEndpointSlice(typ, addr.String(), int32(s.cfg.Port)), metav1.CreateOptions{})
		} else if want := withEndpoint(have, addr.String(), int32(s.cfg.Port), s.store.Members() == 1); want != nil {
			have, err = endpoints.Update(ctx, want, metav1.UpdateOptions{})
		}
		return errors.Join(err, s.publishEndpoints(ctx, client, have))
	})
}

// publishEndpoints repeats the slice in the form that was before slices, for those who still read it.
func (s *Server) publishEndpoints(ctx context.Context, client kubernetes.Interface, slice *discoveryv1.EndpointSlice) error {
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: slice.Name, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}}}
	subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Port: int32(s.cfg.Port), Protocol: corev1.ProtocolTCP}}}
	for _, e := range slice.Endpoints {
		for _, ip := range e.Addresses {
			subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: ip})
		}
	}
	want.Subsets = []corev1.EndpointSubset{subset}
	endpoints := client.CoreV1().Endpoints("default")
	have, err := endpoints.Get(ctx, slice.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = endpoints.Create(ctx, want, metav1.CreateOptions{})
	case err == nil && !(equality.Semantic.DeepEqual(have.Subsets, want.Subsets) && equality.Semantic.DeepEqual(have.Labels, want.Labels)):
		want.ResourceVersion = have.ResourceVersion
		_, err = endpoints.Update(ctx, want, metav1.UpdateOptions{})
	}
	return err
}

func newEndpointSlice(typ discoveryv1.AddressType, addr string, port int32) *discoveryv1.EndpointSlice {
	proto, name := corev1.ProtocolTCP, "https"
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: typ,
		Endpoints:   []discoveryv1.Endpoint{readyEndpoint(addr)},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &proto, Port: &port}},
	}
}

func readyEndpoint(addr string) discoveryv1.Endpoint {
	ready := true
	return discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
}

// withEndpoint returns what to write so that addr is among the endpoints; nil if nothing is to be written. The slice of
// a server that is alone holds only itself: the address it had before a move would swallow every second connection.
func withEndpoint(have *discoveryv1.EndpointSlice, addr string, port int32, alone bool) *discoveryv1.EndpointSlice {
	want := have.DeepCopy()
	if alone {
		want.Endpoints = []discoveryv1.Endpoint{readyEndpoint(addr)}
	} else if !slices.ContainsFunc(want.Endpoints, func(e discoveryv1.Endpoint) bool { return slices.Contains(e.Addresses, addr) }) {
		want.Endpoints = append(want.Endpoints, readyEndpoint(addr))
	}
	want.Ports = newEndpointSlice(have.AddressType, addr, port).Ports
	if equality.Semantic.DeepEqual(have, want) {
		return nil
	}
	return want
}
