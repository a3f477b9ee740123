package endpoints

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller/backend"
)

const (
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	managedBy      = "endpoint-controller"
	// capacity is how many addresses one object holds; what is more is left out, and the object says so.
	capacity  = 1000
	truncated = "truncated"
)

// plan returns the object to write, nil if the stored one (nil: none) is right.
func plan(svc *corev1.Service, pods []*corev1.Pod, have *corev1.Endpoints) *corev1.Endpoints {
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Namespace: svc.Namespace}}
	if have != nil {
		want = have.DeepCopy()
	}
	want.Labels = map[string]string{}
	maps.Copy(want.Labels, svc.Labels)
	want.Labels[managedByLabel] = managedBy
	delete(want.Labels, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" {
		want.Labels[corev1.IsHeadlessService] = ""
	}
	all := subsets(svc, pods)
	want.Subsets = fit(all)
	delete(want.Annotations, corev1.EndpointsOverCapacity)
	if count(all) > capacity {
		metav1.SetMetaDataAnnotation(&want.ObjectMeta, corev1.EndpointsOverCapacity, truncated)
	}
	if have != nil && equality.Semantic.DeepEqual(want, have) {
		return nil
	}
	return want
}

// subsets groups the pods' addresses by the ports they are reached at, in an order that depends on nothing else.
func subsets(svc *corev1.Service, pods []*corev1.Pod) []corev1.EndpointSubset {
	groups := map[string]*corev1.EndpointSubset{}
	for _, pod := range pods {
		address, ok := address(svc, pod)
		if !ok {
			continue
		}
		ports, key := ports(svc, pod)
		// Only a headless Service may have no ports.
		if len(ports) == 0 && (len(svc.Spec.Ports) > 0 || svc.Spec.ClusterIP != corev1.ClusterIPNone) {
			continue
		}
		if groups[key] == nil {
			groups[key] = &corev1.EndpointSubset{Ports: ports}
		}
		list := &groups[key].NotReadyAddresses
		if svc.Spec.PublishNotReadyAddresses || backend.Ready(pod) {
			list = &groups[key].Addresses
		}
		*list = append(*list, address)
	}
	var out []corev1.EndpointSubset
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		slices.SortFunc(groups[key].Addresses, byAddress)
		slices.SortFunc(groups[key].NotReadyAddresses, byAddress)
		out = append(out, *groups[key])
	}
	return out
}

func byAddress(a, b corev1.EndpointAddress) int {
	return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(a.TargetRef.UID, b.TargetRef.UID))
}

// address is a pod's place in the Service; false if it has none: it has ended, is going, or has no address yet.
func address(svc *corev1.Service, pod *corev1.Pod) (corev1.EndpointAddress, bool) {
	family := discoveryv1.AddressTypeIPv4
	if len(svc.Spec.IPFamilies) > 0 {
		family = discoveryv1.AddressType(svc.Spec.IPFamilies[0])
	}
	ip := backend.IP(pod, family)
	if ip == "" || backend.Ended(pod) || pod.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses {
		return corev1.EndpointAddress{}, false
	}
	a := corev1.EndpointAddress{IP: ip, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}}
	if pod.Spec.NodeName != "" {
		a.NodeName = ptr.To(pod.Spec.NodeName)
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == svc.Name {
		a.Hostname = pod.Spec.Hostname
	}
	return a, true
}

// ports are those of the Service that the pod has, and a key that is the same for the same ports.
func ports(svc *corev1.Service, pod *corev1.Pod) (out []corev1.EndpointPort, key string) {
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if number, ok := backend.Port(p, pod); ok {
			out = append(out, corev1.EndpointPort{Name: p.Name, Port: number, Protocol: p.Protocol, AppProtocol: p.AppProtocol})
			key += p.Name + "/" + string(p.Protocol) + "/" + strconv.Itoa(int(number)) + ","
		}
	}
	return out, key
}

func count(in []corev1.EndpointSubset) (n int) {
	for _, s := range in {
		n += len(s.Addresses) + len(s.NotReadyAddresses)
	}
	return n
}

// fit takes what is beyond capacity from every subset in proportion to its size, ready addresses last.
func fit(in []corev1.EndpointSubset) []corev1.EndpointSubset {
	if count(in) <= capacity {
		return in
	}
	serving := 0
	for _, s := range in {
		serving += len(s.Addresses)
	}
	ready := share{total: serving, most: min(serving, capacity)}
	notReady := share{total: count(in) - serving, most: capacity - ready.most}
	var out []corev1.EndpointSubset
	for _, s := range in {
		s.Addresses = s.Addresses[:ready.of(len(s.Addresses))]
		s.NotReadyAddresses = s.NotReadyAddresses[:notReady.of(len(s.NotReadyAddresses))]
		if len(s.Addresses)+len(s.NotReadyAddresses) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// share divides most among parts of a total; all parts together get exactly most.
type share struct{ total, most, seen int }

func (s *share) of(part int) int {
	if s.total == 0 {
		return 0
	}
	before := s.seen * s.most / s.total
	s.seen += part
	return s.seen*s.most/s.total - before
}
