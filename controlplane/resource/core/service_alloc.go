package core

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/core/address"
	"keelson.dev/keelson/controlplane/resource/core/nodeport"
)

// releaseTimeout bounds giving back what a request took: it runs on a context of its own, as the request's may have ended.
const releaseTimeout = 10 * time.Second

// installService sets the hooks that allocate and release, and makes the status view after them.
func installService(d resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
	a, err := newAllocator(d, store)
	if err != nil {
		return nil, err
	}
	scraped.Store(a)
	registerMetrics()
	store.AfterDelete = a.afterDelete
	status := viewOf(store, viewRules[*corev1.Service]{
		prepare:  func(_ context.Context, s, old *corev1.Service) { s.Spec = old.Spec },
		validate: func(_ context.Context, s, old *corev1.Service) field.ErrorList { return validateBalancerStatus(s, old) },
		warnings: func(_ context.Context, s, _ *corev1.Service) []string { return balancerWarnings(s) },
		reset:    []string{"spec"},
	})
	store.BeginCreate = a.beginCreate
	store.BeginUpdate = a.beginUpdate
	store.ResetFieldsStrategy = view{reset: resetFields("status")}
	return map[string]rest.Storage{"status": status}, nil
}

func balancerWarnings(s *corev1.Service) []string {
	var warnings []string
	for i, ingress := range s.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			warnings = append(warnings, validation.GetWarningsForIP(field.NewPath("status", "loadBalancer", "ingress").Index(i), ingress.IP)...)
		}
	}
	return warnings
}

// allocator gives Services their cluster IPs and node ports.
type allocator struct {
	families families
	ips      address.Pool
	ports    nodeport.Ledger
}

func newAllocator(d resource.Deps, store *genericregistry.Store) (*allocator, error) {
	a := &allocator{}
	for _, cidr := range d.ServiceCIDRs {
		prefix, err := netip.ParsePrefix(cidr.String())
		if err != nil {
			return nil, fmt.Errorf("service address range %s: %w", cidr, err)
		}
		family := corev1.IPv6Protocol
		if prefix.Addr().Is4() {
			family = corev1.IPv4Protocol
		}
		if !a.families.has(family) {
			a.families = append(a.families, family)
		}
		a.ips.Ranges = append(a.ips.Ranges, prefix.Masked())
	}
	if len(a.families) == 0 {
		return nil, errors.New("no service address range is configured")
	}
	named := func(resource string) func() address.Store {
		return func() address.Store {
			if s := d.Store(schema.GroupResource{Group: "networking.k8s.io", Resource: resource}); s != nil {
				return s
			}
			return nil
		}
	}
	a.ips.Records, a.ips.CIDRs = named("ipaddresses"), named("servicecidrs")
	a.ips.Services = func() address.Store { return store }
	a.ports = nodeport.Ledger{
		Storage: store.Storage.Storage,
		Key:     store.KeyRootFunc(context.Background()) + "-nodeports", // beside the Services' keys, under none of them
		Range:   d.NodePorts,
		InUse: func(ctx context.Context, port int32, o nodeport.Owner) bool {
			obj, err := store.Get(request.WithNamespace(ctx, o.Namespace), o.Name, &metav1.GetOptions{})
			s, ok := obj.(*corev1.Service)
			if err != nil || !ok {
				return !apierrors.IsNotFound(err)
			}
			return s.UID == o.UID && (slices.Contains(nodePorts(s), port) || s.Spec.HealthCheckNodePort == port)
		},
	}
	return a, nil
}

func (a *allocator) beginCreate(ctx context.Context, obj runtime.Object, options *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("create service: got a %T", obj))
	}
	normalizeClusterIPs(s, nil)
	return a.begin(ctx, s, nil, dryrun.IsDryRun(options.DryRun))
}

func (a *allocator) beginUpdate(ctx context.Context, obj, oldObj runtime.Object, options *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
	s, ok := obj.(*corev1.Service)
	old, okOld := oldObj.(*corev1.Service)
	if !ok || !okOld {
		return nil, apierrors.NewInternalError(fmt.Errorf("update service: got a %T for a %T", obj, oldObj))
	}
	keepAllocated(s, old)
	normalizeClusterIPs(s, old)
	return a.begin(ctx, s, old, dryrun.IsDryRun(options.DryRun))
}

// begin takes what s needs and old does not have. The function it returns gives it back if the request fails, and
// gives back what s no longer needs if it succeeds. Nothing is taken if begin fails.
func (a *allocator) begin(ctx context.Context, s, old *corev1.Service, dryRun bool) (genericregistry.FinishFunc, error) {
	if errs := a.families.choose(s, old); len(errs) > 0 {
		return nil, invalidService(s, errs)
	}
	var taken holding
	finish := func(_ context.Context, success bool) {
		switch {
		case dryRun:
		case !success:
			a.release(s, taken)
		case old != nil:
			a.release(old, holdingOf(old).without(holdingOf(s)))
		}
	}
	err := a.takeIPs(ctx, s, old, dryRun, &taken)
	if err == nil {
		err = a.takePorts(ctx, s, old, dryRun, &taken)
	}
	if err != nil {
		finish(ctx, false)
		return nil, err
	}
	return finish, nil
}

// takeIPs fills clusterIPs up to one address per family: all of them for a Service that had none, or the second one for
// an update that gained a family. Any other change of addresses is left to validation, which refuses it.
func (a *allocator) takeIPs(ctx context.Context, s, old *corev1.Service, dryRun bool, taken *holding) error {
	if !needsClusterIP(s) || isHeadless(s) {
		return nil
	}
	first := 0
	if old != nil && needsClusterIP(old) {
		if keepsPreferDual(s, old) || isHeadless(old) || len(old.Spec.IPFamilies) != 1 || len(s.Spec.IPFamilies) != 2 {
			return nil
		}
		first = 1
	}
	for i := first; i < len(s.Spec.IPFamilies); i++ {
		want := ""
		if i < len(s.Spec.ClusterIPs) {
			want = s.Spec.ClusterIPs[i]
		}
		ip, err := a.ips.Take(ctx, s, s.Spec.IPFamilies[i], want, dryRun)
		if err != nil {
			return ipError(s, want, err)
		}
		taken.ips = append(taken.ips, ip)
		if i < len(s.Spec.ClusterIPs) {
			s.Spec.ClusterIPs[i] = ip
		} else {
			s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, ip)
		}
		if i == 0 {
			s.Spec.ClusterIP = ip
		}
	}
	return nil
}

func ipError(s *corev1.Service, want string, err error) error {
	if want == "" && errors.Is(err, address.ErrFull) {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", s.Name, err))
	}
	what := "failed to allocate IP"
	if want != "" {
		what += " " + want
	}
	return invalidService(s, field.ErrorList{field.Invalid(clusterIPsPath, s.Spec.ClusterIPs, fmt.Sprintf("%s: %v", what, err))})
}

func invalidService(s *corev1.Service, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, s.Name, errs)
}

func (a *allocator) afterDelete(obj runtime.Object, options *metav1.DeleteOptions) {
	if s, ok := obj.(*corev1.Service); ok && !dryrun.IsDryRun(options.DryRun) {
		a.release(s, holdingOf(s))
	}
}

// holding is what a Service has taken that no other may have.
type holding struct {
	ips   []string
	ports []int32
}

func holdingOf(s *corev1.Service) holding {
	h := holding{ports: nodePorts(s)}
	if needsHealthCheck(s) && s.Spec.HealthCheckNodePort != 0 {
		h.ports = append(h.ports, s.Spec.HealthCheckNodePort)
	}
	if needsClusterIP(s) && !isHeadless(s) {
		h.ips = s.Spec.ClusterIPs
	}
	return h
}

func (h holding) without(kept holding) holding {
	return holding{ips: difference(h.ips, kept.ips), ports: difference(h.ports, kept.ports)}
}

func difference[T comparable](a, b []T) []T {
	var out []T
	for _, v := range a {
		if !slices.Contains(b, v) {
			out = append(out, v)
		}
	}
	return out
}

// release gives back on a context of its own. What cannot be given back now is a leftover that the allocators find later.
func (a *allocator) release(s *corev1.Service, h holding) {
	ctx, cancel := context.WithTimeout(request.NewContext(), releaseTimeout)
	defer cancel()
	for _, ip := range h.ips {
		if err := a.ips.Release(ctx, s, ip); err != nil {
			utilruntime.HandleError(err)
		}
	}
	if err := a.ports.Release(ctx, ownerOf(s), h.ports); err != nil {
		utilruntime.HandleError(fmt.Errorf("release node ports of service %s/%s: %w", s.Namespace, s.Name, err))
	}
}

func ownerOf(s *corev1.Service) nodeport.Owner {
	return nodeport.Owner{Namespace: s.Namespace, Name: s.Name, UID: s.UID, Since: time.Now()}
}
