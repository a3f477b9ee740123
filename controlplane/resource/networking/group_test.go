package networking

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(),
		resourcetest.Row{Plural: "ingressclasses", Kind: "IngressClass"},
		resourcetest.Row{Plural: "ingresses", Short: "ing", Kind: "Ingress", Namespaced: true},
		resourcetest.Row{Plural: "ipaddresses", Short: "ip", Kind: "IPAddress"},
		resourcetest.Row{Plural: "networkpolicies", Short: "netpol", Kind: "NetworkPolicy", Namespaced: true},
		resourcetest.Row{Plural: "servicecidrs", Kind: "ServiceCIDR"})
}

func TestPolicyDefaults(t *testing.T) {
	p := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
		Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{}}}},
		Egress:  []networkingv1.NetworkPolicyEgressRule{{}},
	}}
	want := p.DeepCopy()
	want.Spec.PolicyTypes = []networkingv1.PolicyType{"Ingress", "Egress"}
	want.Spec.Ingress[0].Ports[0].Protocol = ptr.To(corev1.ProtocolTCP)
	resourcetest.CheckDefaults(t, resourcetest.Kind(t, Group(), "NetworkPolicy"), p, want)
}

func TestValidatePolicy(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "NetworkPolicy")
	port := func(p *intstr.IntOrString, end *int32) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: p, EndPort: end}}}}}
	}
	peer := func(p networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{p}}}}
	}
	for _, c := range []struct {
		spec networkingv1.NetworkPolicySpec
		want []string
	}{
		{port(ptr.To(intstr.FromInt32(80)), ptr.To[int32](90)), nil},
		{port(ptr.To(intstr.FromString("http")), nil), nil},
		{port(ptr.To(intstr.FromInt32(80)), ptr.To[int32](79)), []string{"spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`"}},
		{port(nil, ptr.To[int32](79)), []string{"spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is not specified"}},
		{port(ptr.To(intstr.FromString("http")), ptr.To[int32](79)), []string{"may not be specified when `port` is non-numeric"}},
		{port(ptr.To(intstr.FromInt32(0)), nil), []string{"spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"}},
		{peer(networkingv1.NetworkPolicyPeer{}), []string{"spec.egress[0].to[0]: Required value: must specify a peer"}},
		{peer(networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}, IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}),
			[]string{"spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer"}},
		{peer(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16", "11.0.0.0/16", "10.0.0.0/8"}}}), []string{
			"spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
			"spec.egress[0].to[0].ipBlock.except[2]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`"}},
		{peer(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0"}}), []string{"spec.egress[0].to[0].ipBlock.cidr: Invalid value"}},
		{peer(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.1/8", Except: []string{"11.0.0.0/16"}}}), []string{
			"spec.egress[0].to[0].ipBlock.cidr: Invalid value", "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"}},
		{networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Sideways"}}, []string{`spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Ingress", "Egress"`}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), &networkingv1.NetworkPolicy{Spec: c.spec}), c.want...)
	}
}

func backend(name string) networkingv1.IngressBackend {
	return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name, Port: networkingv1.ServiceBackendPort{Number: 80}}}
}

func rule(host, path string, typ networkingv1.PathType) networkingv1.IngressRule {
	return networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
		Paths: []networkingv1.HTTPIngressPath{{Path: path, PathType: &typ, Backend: backend("web")}},
	}}}
}

func TestValidateIngress(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "Ingress")
	of := func(rules ...networkingv1.IngressRule) networkingv1.IngressSpec {
		return networkingv1.IngressSpec{Rules: rules}
	}
	noType := rule("a.example.com", "/", "Prefix")
	noType.HTTP.Paths[0].PathType = nil
	for _, c := range []struct {
		spec networkingv1.IngressSpec
		want []string
	}{
		{of(rule("a.example.com", "/", "Prefix")), nil},
		{of(rule("*.example.com", "/x", "Exact")), nil},
		{networkingv1.IngressSpec{DefaultBackend: ptr.To(backend("web"))}, nil},
		{networkingv1.IngressSpec{}, []string{"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"}},
		{of(rule("1.2.3.4", "/", "Prefix")), []string{`spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address`}},
		{of(rule("a", "x//y", "Exact")), []string{
			`spec.rules[0].http.paths[0].path: Invalid value: "x//y": must be an absolute path`,
			`spec.rules[0].http.paths[0].path: Invalid value: "x//y": must not contain '//'`}},
		{of(rule("a", "/", "Fuzzy")), []string{`spec.rules[0].http.paths[0].pathType: Unsupported value: "Fuzzy": supported values: "Exact", "ImplementationSpecific", "Prefix"`}},
		{of(noType), []string{"spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"}},
		{networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{}}, []string{`spec.defaultBackend: Invalid value: "": resource or service backend is required`}},
		{networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "a.b"}}}, []string{
			`spec.defaultBackend.service.name: Invalid value: "a.b"`, "spec.defaultBackend: Required value: port name or number is required"}},
		{networkingv1.IngressSpec{DefaultBackend: ptr.To(backend("web")), TLS: []networkingv1.IngressTLS{{Hosts: []string{"*"}, SecretName: "A"}}}, []string{
			`spec.tls[0].hosts[0]: Invalid value: "*"`, `spec.tls[0].secretName: Invalid value: "A"`}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), &networkingv1.Ingress{Spec: c.spec}), c.want...)
	}
	both := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{classAnnotation: "a"}},
		Spec: networkingv1.IngressSpec{DefaultBackend: ptr.To(backend("web")), IngressClassName: ptr.To("b")}}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), both), "must match `ingressClassName` when both are specified")
	one := both.DeepCopy()
	one.Spec.IngressClassName = nil
	if w, w2 := k.Warnings(t.Context(), both, nil), k.Warnings(t.Context(), one, nil); len(w) != 0 || len(w2) != 1 {
		t.Errorf("warnings %q and %q", w, w2)
	}
}

func TestValidateOthers(t *testing.T) {
	class := &networkingv1.IngressClass{Spec: networkingv1.IngressClassSpec{Controller: "nope",
		Parameters: &networkingv1.IngressClassParametersReference{Kind: "K", Name: "n", Scope: ptr.To("Namespace")}}}
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "IngressClass").Validate(t.Context(), class),
		"spec.controller: Invalid value: \"nope\": must be a domain-prefixed path",
		"spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'")
	ip := resourcetest.Kind(t, Group(), "IPAddress")
	resourcetest.CheckErrors(t, ip.Validate(t.Context(), &networkingv1.IPAddress{}), "spec.parentRef: Required value")
	for name, ok := range map[string]bool{"10.96.0.1": true, "fd00::1": true, "010.0.0.1": false, "fd00:0::1": false, "x": false} {
		if errs := ip.ValidateName(name, false); (len(errs) == 0) != ok {
			t.Errorf("name %s: %q", name, errs)
		}
	}
	cidr := resourcetest.Kind(t, Group(), "ServiceCIDR")
	for _, c := range []struct {
		cidrs []string
		want  []string
	}{
		{[]string{"10.96.0.0/12"}, nil},
		{[]string{"10.96.0.0/12", "fd00::/108"}, nil},
		{nil, []string{"spec.cidrs: Required value: at least one CIDR required"}},
		{[]string{"10.96.0.0/12", "10.0.0.0/12"}, []string{"may specify no more than one IP for each IP family"}},
		{[]string{"10.96.0.1/12"}, []string{"spec.cidrs[0]: Invalid value"}},
	} {
		resourcetest.CheckErrors(t, cidr.Validate(t.Context(), &networkingv1.ServiceCIDR{Spec: networkingv1.ServiceCIDRSpec{CIDRs: c.cidrs}}), c.want...)
	}
	of := func(list string) *networkingv1.ServiceCIDR {
		return &networkingv1.ServiceCIDR{Spec: networkingv1.ServiceCIDRSpec{CIDRs: strings.Fields(list)}}
	}
	for _, c := range []struct {
		was, now string
		want     []string
	}{
		{"10.96.0.0/12", "10.96.0.0/12", nil},
		{"10.96.0.0/12", "10.96.0.0/12 fd00::/108", nil},
		{"10.96.0.0/12", "10.96.0.0/12 10.112.0.0/12", []string{"may specify no more than one IP for each IP family"}},
		{"10.96.0.0/12", "fd00::/108 10.96.0.0/12", []string{"spec.cidrs[0]: Invalid value: \"fd00::/108\": field is immutable"}},
		{"10.96.0.0/12", "10.112.0.0/12", []string{"spec.cidrs[0]: Invalid value: \"10.112.0.0/12\": field is immutable"}},
		{"10.96.0.0/12 fd00::/108", "10.96.0.0/12", []string{"spec.cidrs: Invalid value: [\"10.96.0.0/12\"]: field is immutable"}},
	} {
		resourcetest.CheckErrors(t, cidr.ValidateUpdate(t.Context(), of(c.now), of(c.was)), c.want...)
	}
}

func TestColumns(t *testing.T) {
	i := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{rule("a", "/", "Prefix"), rule("b", "/", "Prefix"), rule("c", "/", "Prefix"), rule("d", "/", "Prefix")}}}
	i.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "2.2.2.2"}, {Hostname: "1.example.com"}, {IP: "2.2.2.2"}}
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "Ingress"), i)
	if names != "Class|Hosts|Address|Ports|Age" || cells[1] != "a,b,c + 1 more..." || cells[2] != "1.example.com,2.2.2.2" || cells[3] != "80" {
		t.Errorf("columns %s, cells %q", names, cells)
	}
	a := &networkingv1.IPAddress{Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "kubernetes"}}}
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}}}
	if names, cells = resourcetest.Cells(resourcetest.Kind(t, Group(), "IngressClass"), class); names != "Name|Controller|Parameters|Age" || cells[0] != "b (default)" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
	if names, cells = resourcetest.Cells(resourcetest.Kind(t, Group(), "IPAddress"), a); names != "Name|ParentRef" || cells[1] != "services/default/kubernetes" {
		t.Errorf("columns %s, cells %q", names, cells)
	}
}

func TestChangesThatUpstreamCounts(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "NetworkPolicy")
	was := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Generation: 3}}
	now := was.DeepCopy()
	now.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{}
	k.PrepareForUpdate(t.Context(), now, was)
	if now.Generation != 4 {
		t.Errorf("an empty list in the place of none: generation %d", now.Generation)
	}
	cidr := resourcetest.Kind(t, Group(), "ServiceCIDR")
	c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}
	if cidr.PrepareStatusUpdate(t.Context(), c, &networkingv1.ServiceCIDR{}); len(c.Labels) != 0 {
		t.Errorf("a status update set labels %v", c.Labels)
	}
	ip := resourcetest.Kind(t, Group(), "IPAddress")
	of := func(name string) *networkingv1.IPAddress {
		return &networkingv1.IPAddress{Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "r", Name: name}}}
	}
	resourcetest.CheckErrors(t, ip.ValidateUpdate(t.Context(), of("a"), of("b")), "spec.parentRef: Invalid value: null: field is immutable")
}
