package address

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// What a client reads, behind "failed to allocate IP".
var (
	ErrFull      = errors.New("range is full")
	ErrTaken     = errors.New("provided IP is already allocated")
	ErrNoNetwork = errors.New("the provided network does not match the current range")
)

// orphanAge is longer than a request may take: an older record without its Service is a leftover.
const orphanAge = 2 * time.Minute

const managedBy = "ipallocator.k8s.io"

// Store is the part of a kind's store that is used here.
type Store interface {
	rest.Getter
	rest.Lister
	rest.Creater
	rest.GracefulDeleter
}

// Pool gives out addresses. The zero value is not usable; all functions are required, CIDRs may return nil.
type Pool struct {
	// Records returns the store of IPAddress objects, CIDRs that of ServiceCIDR objects, Services that of Services.
	Records, CIDRs, Services func() Store
	// Ranges are the cluster's configured ranges; ServiceCIDR objects add to them.
	Ranges []netip.Prefix
}

// Take claims the address want for the Service, or any free one of the family if want is empty. With dryRun nothing
// is written. Errors wrap ErrFull, ErrTaken or ErrNoNetwork where those apply.
func (p Pool) Take(ctx context.Context, svc *corev1.Service, family corev1.IPFamily, want string, dryRun bool) (string, error) {
	ranges := p.ranges(ctx, family)
	if want != "" {
		return want, p.takeThis(ctx, svc, ranges, want, dryRun)
	}
	if dryRun {
		if len(ranges) == 0 {
			return "", ErrFull
		}
		return ranges[0].Addr().String(), nil
	}
	for _, prefix := range ranges {
		begun := time.Now()
		addr, err := p.takeAny(ctx, svc, spanOf(prefix))
		observe(prefix, dynamic, begun, err)
		if !errors.Is(err, ErrFull) {
			return addr, err
		}
	}
	return "", ErrFull
}

// ranges are the configured ones and those of ready ServiceCIDRs, without doubles.
func (p Pool) ranges(ctx context.Context, family corev1.IPFamily) []netip.Prefix {
	var out []netip.Prefix
	add := func(prefix netip.Prefix) {
		for _, have := range out {
			if have == prefix {
				return
			}
		}
		if prefix.Addr().Is4() == (family == corev1.IPv4Protocol) {
			out = append(out, prefix)
		}
	}
	for _, prefix := range p.Ranges {
		add(prefix)
	}
	store := p.CIDRs()
	if store == nil {
		return out
	}
	obj, err := store.List(clusterScope(ctx), &internalversion.ListOptions{})
	list, ok := obj.(*networkingv1.ServiceCIDRList)
	if err != nil || !ok {
		return out // the configured ranges go on working
	}
	for _, c := range list.Items {
		if !ready(&c) {
			continue
		}
		for _, text := range c.Spec.CIDRs {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				add(prefix.Masked())
			}
		}
	}
	return out
}

// ready: one that is being deleted gives nothing out, else it would never be rid of its addresses.
func ready(c *networkingv1.ServiceCIDR) bool {
	if c.DeletionTimestamp != nil {
		return false
	}
	for _, condition := range c.Status.Conditions {
		if condition.Type == networkingv1.ServiceCIDRConditionReady {
			return condition.Status == metav1.ConditionTrue
		}
	}
	return true
}

func (p Pool) takeThis(ctx context.Context, svc *corev1.Service, ranges []netip.Prefix, want string, dryRun bool) error {
	addr, err := netip.ParseAddr(want)
	if err != nil {
		return err
	}
	for _, prefix := range ranges {
		if !spanOf(prefix).contains(addr) {
			continue
		}
		if dryRun {
			return nil
		}
		begun := time.Now()
		err := p.create(ctx, svc, addr)
		if errors.Is(err, ErrTaken) && p.reclaim(ctx, addr) {
			err = p.create(ctx, svc, addr)
		}
		observe(prefix, static, begun, err)
		return err
	}
	if dryRun && len(ranges) > 0 {
		return fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", want, ranges[0])
	}
	return ErrNoNetwork
}

// takeAny tries a few addresses blindly, which is enough in a range that is not nearly full, and then those that no
// record has.
func (p Pool) takeAny(ctx context.Context, svc *corev1.Service, s span) (string, error) {
	const blind = 4
	for range blind {
		addr, ok := s.at(rand.Uint64())
		if !ok {
			return "", ErrFull
		}
		if err := p.create(ctx, svc, addr); !errors.Is(err, ErrTaken) {
			return addr.String(), err
		}
	}
	taken, err := p.taken(ctx)
	if err != nil {
		return "", err
	}
	for addr := range s.all(rand.Uint64()) {
		if taken.Has(addr.String()) {
			continue
		}
		if err := p.create(ctx, svc, addr); !errors.Is(err, ErrTaken) {
			return addr.String(), err
		}
	}
	for addr := range s.all(rand.Uint64()) {
		if !p.reclaim(ctx, addr) {
			continue
		}
		if err := p.create(ctx, svc, addr); !errors.Is(err, ErrTaken) {
			return addr.String(), err
		}
	}
	return "", ErrFull
}

func (p Pool) taken(ctx context.Context) (sets.Set[string], error) {
	obj, err := p.Records().List(clusterScope(ctx), &internalversion.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list allocated addresses: %w", err)
	}
	list, ok := obj.(*networkingv1.IPAddressList)
	if !ok {
		return nil, fmt.Errorf("list allocated addresses: got a %T", obj)
	}
	names := sets.New[string]()
	for _, r := range list.Items {
		names.Insert(r.Name)
	}
	return names, nil
}

func (p Pool) create(ctx context.Context, svc *corev1.Service, addr netip.Addr) error {
	family := corev1.IPv6Protocol
	if addr.Is4() {
		family = corev1.IPv4Protocol
	}
	record := &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: addr.String(), Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(family), networkingv1.LabelManagedBy: managedBy,
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
			Resource: "services", Namespace: svc.Namespace, Name: svc.Name,
		}},
	}
	_, err := p.Records().Create(clusterScope(ctx), record, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return ErrTaken
	}
	return err
}

// reclaim frees an address whose record is a leftover. It is false if the address is in use, or was taken meanwhile.
func (p Pool) reclaim(ctx context.Context, addr netip.Addr) bool {
	record, ok := p.record(ctx, addr.String())
	if !ok || record.Spec.ParentRef == nil || record.Labels[networkingv1.LabelManagedBy] != managedBy ||
		time.Since(record.CreationTimestamp.Time) < orphanAge {
		return false
	}
	parent := record.Spec.ParentRef
	obj, err := p.Services().Get(request.WithNamespace(ctx, parent.Namespace), parent.Name, &metav1.GetOptions{})
	if svc, ok := obj.(*corev1.Service); err == nil && ok {
		for _, ip := range svc.Spec.ClusterIPs {
			if ip == record.Name {
				return false
			}
		}
	} else if !apierrors.IsNotFound(err) {
		return false
	}
	return p.delete(ctx, record) == nil
}

// Release gives the Service's address back. An address that another has by now is left alone.
func (p Pool) Release(ctx context.Context, svc *corev1.Service, ip string) error {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return fmt.Errorf("release address %q of service %s/%s: %w", ip, svc.Namespace, svc.Name, err)
	}
	record, ok := p.record(ctx, addr.String())
	if !ok || record.Spec.ParentRef == nil || record.Spec.ParentRef.Namespace != svc.Namespace || record.Spec.ParentRef.Name != svc.Name {
		return nil
	}
	if err := p.delete(ctx, record); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("release address %s of service %s/%s: %w", ip, svc.Namespace, svc.Name, err)
	}
	return nil
}

func (p Pool) record(ctx context.Context, name string) (*networkingv1.IPAddress, bool) {
	obj, err := p.Records().Get(clusterScope(ctx), name, &metav1.GetOptions{})
	record, ok := obj.(*networkingv1.IPAddress)
	return record, err == nil && ok
}

// delete removes this very record, not one that took its name since.
func (p Pool) delete(ctx context.Context, record *networkingv1.IPAddress) error {
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &record.UID, ResourceVersion: &record.ResourceVersion}}
	_, _, err := p.Records().Delete(clusterScope(ctx), record.Name, rest.ValidateAllObjectFunc, options)
	return err
}

func clusterScope(ctx context.Context) context.Context {
	return request.WithNamespace(ctx, metav1.NamespaceNone)
}
