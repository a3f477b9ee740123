package endpointslice

import (
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/controlplane/controller/backend"
)

const (
	perSlice  = 100
	managedBy = "endpointslice-controller.k8s.io"
)

// input is everything that a plan is made from.
type input struct {
	service *corev1.Service
	pods    []*corev1.Pod // selected by the service
	zones   map[string]string
	slices  []*discoveryv1.EndpointSlice // of the service, made by us
}

// changes bring the stored slices to what is wanted.
type changes struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// group is the endpoints that share address family and ports, and so may share a slice.
type group struct {
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints map[string]discoveryv1.Endpoint // by pod UID
}

// plan decides the changes.
func plan(in input) changes {
	var out changes
	out.to(serviceTemplate(in.service), wanted(in), in.slices)
	return out
}

// to brings a source's slices to the wanted groups.
func (c *changes) to(t template, groups map[string]*group, have []*discoveryv1.EndpointSlice) {
	claimed := map[string]bool{}
	for _, key := range sortedKeys(groups) {
		g := groups[key]
		var mine []*discoveryv1.EndpointSlice
		for _, s := range have {
			if !claimed[s.Name] && s.AddressType == g.family && groupKey(s.AddressType, s.Ports) == key {
				mine = append(mine, s)
				claimed[s.Name] = true
			}
		}
		c.fill(t, g, mine)
	}
	for _, s := range have {
		if !claimed[s.Name] {
			c.remove = append(c.remove, s)
		}
	}
}

// fill keeps endpoints where they are, drops what is not wanted, puts new ones where there is room, and makes slices for the rest.
func (c *changes) fill(t template, g *group, have []*discoveryv1.EndpointSlice) {
	left := make(map[string]discoveryv1.Endpoint, len(g.endpoints))
	for uid, e := range g.endpoints {
		left[uid] = e
	}
	next := make([]*discoveryv1.EndpointSlice, len(have))
	for i, s := range have {
		next[i] = s.DeepCopy()
		next[i].Endpoints = nil
		for _, e := range s.Endpoints {
			uid := t.identity(e)
			if want, ok := left[uid]; ok {
				next[i].Endpoints = append(next[i].Endpoints, want)
				delete(left, uid)
			}
		}
	}
	pending := sortedKeys(left)
	take := func(room int) (out []discoveryv1.Endpoint) {
		for ; room > 0 && len(pending) > 0; room-- {
			out = append(out, left[pending[0]])
			pending = pending[1:]
		}
		return out
	}
	for i, s := range next {
		s.Endpoints = append(s.Endpoints, take(perSlice-len(s.Endpoints))...)
		s.Labels = t.labels
		if t.annotations != nil {
			s.Annotations = t.annotations
		}
		switch {
		case len(s.Endpoints) == 0 && (len(g.endpoints) > 0 || i > 0 || !t.always):
			c.remove = append(c.remove, have[i])
		case !equality.Semantic.DeepEqual(s, have[i]):
			c.update = append(c.update, s)
		}
	}
	// A service always has a slice of each family, if an empty one, so that watchers see that it is known.
	for len(pending) > 0 || t.always && len(have) == 0 && len(g.endpoints) == 0 {
		s := t.slice(g)
		s.Endpoints = take(perSlice)
		c.create = append(c.create, s)
		if len(pending) == 0 {
			break
		}
	}
}

// template is what all slices of one source share.
type template struct {
	source      metav1.ObjectMeta
	owner       schema.GroupVersionKind
	labels      map[string]string
	annotations map[string]string // nil: whatever a slice has
	always      bool              // one slice stays, if an empty one
	identity    func(discoveryv1.Endpoint) string
}

func serviceTemplate(svc *corev1.Service) template {
	return template{source: svc.ObjectMeta, owner: corev1.SchemeGroupVersion.WithKind("Service"), labels: sliceLabels(svc), always: true, identity: podUID}
}

func (t template) slice(g *group) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: t.source.Name + "-", Namespace: t.source.Namespace, Labels: t.labels, Annotations: t.annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(&t.source, t.owner)},
		},
		AddressType: g.family, Ports: g.ports,
	}
}

// sliceLabels are the service's own labels and those by which slices are found.
func sliceLabels(svc *corev1.Service) map[string]string {
	out := make(map[string]string, len(svc.Labels)+3)
	for k, v := range svc.Labels {
		out[k] = v
	}
	out[discoveryv1.LabelServiceName] = svc.Name
	out[discoveryv1.LabelManagedBy] = managedBy
	delete(out, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		out[corev1.IsHeadlessService] = ""
	}
	return out
}

// wanted groups the service's endpoints. A family without any still has an empty group.
func wanted(in input) map[string]*group {
	out := map[string]*group{}
	add := func(family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *group {
		key := groupKey(family, ports)
		if out[key] == nil {
			out[key] = &group{family: family, ports: ports, endpoints: map[string]discoveryv1.Endpoint{}}
		}
		return out[key]
	}
	for _, family := range families(in.service) {
		found := false
		for _, pod := range in.pods {
			ip := backend.IP(pod, family)
			if ip == "" || backend.Ended(pod) {
				continue
			}
			found = true
			g := add(family, endpointPorts(in.service, pod))
			g.endpoints[string(pod.UID)] = endpoint(in.service, pod, ip, in.zones)
		}
		if !found {
			add(family, nil)
		}
	}
	return out
}

func families(svc *corev1.Service) []discoveryv1.AddressType {
	var out []discoveryv1.AddressType
	for _, f := range svc.Spec.IPFamilies {
		out = append(out, discoveryv1.AddressType(f))
	}
	if len(out) == 0 {
		out = append(out, discoveryv1.AddressTypeIPv4)
	}
	return out
}

func endpoint(svc *corev1.Service, pod *corev1.Pod, ip string, zones map[string]string) discoveryv1.Endpoint {
	serving, terminating := backend.Ready(pod), pod.DeletionTimestamp != nil
	ready := svc.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		e.NodeName = &pod.Spec.NodeName
		if zone := zones[pod.Spec.NodeName]; zone != "" {
			e.Zone = &zone
		}
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == svc.Name {
		e.Hostname = &pod.Spec.Hostname
	}
	if want := svc.Spec.TrafficDistribution; want != nil && ready {
		e.Hints = hints(*want, e)
	}
	return e
}

// hints say for whom an endpoint is near (KEP-3015); nil where nothing is known.
func hints(want string, e discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	var h discoveryv1.EndpointHints
	if want == corev1.ServiceTrafficDistributionPreferSameNode && e.NodeName != nil {
		h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
	}
	if e.Zone != nil {
		h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
	}
	if h.ForNodes == nil && h.ForZones == nil {
		return nil
	}
	return &h
}

// endpointPorts resolves the service's target ports on one pod; a named port that the pod lacks is left out.
func endpointPorts(svc *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if number, ok := backend.Port(p, pod); ok {
			out = append(out, discoveryv1.EndpointPort{Name: &p.Name, Port: &number, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
		}
	}
	return out
}

// groupKey tells apart sets of ports; their order does not matter.
func groupKey(family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	parts := make([]string, 0, len(ports))
	for _, p := range ports {
		parts = append(parts, portKey(p))
	}
	sort.Strings(parts)
	return string(family) + "|" + strings.Join(parts, ",")
}

func podUID(e discoveryv1.Endpoint) string {
	if e.TargetRef == nil {
		return ""
	}
	return string(e.TargetRef.UID)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
