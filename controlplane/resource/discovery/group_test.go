package discovery

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "endpointslices", Kind: "EndpointSlice", Namespaced: true})
}

func TestDefaults(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "EndpointSlice")
	resourcetest.CheckDefaults(t, k,
		&discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{}}},
		&discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Protocol: ptr.To(corev1.ProtocolTCP)}}})
}

func TestValidate(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "EndpointSlice")
	slice := func(family discoveryv1.AddressType, addresses ...string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{AddressType: family, Endpoints: []discoveryv1.Endpoint{{Addresses: addresses}}}
	}
	for _, c := range []struct {
		slice *discoveryv1.EndpointSlice
		want  []string
	}{
		{slice("IPv4", "10.1.2.3"), nil},
		{slice("IPv6", "fd00::1"), nil},
		{slice("FQDN", "a.example.com"), nil},
		{slice("", "x"), []string{"addressType: Required value"}},
		{slice("IPX", "x"), []string{`addressType: Unsupported value: "IPX": supported values: "FQDN", "IPv4", "IPv6"`}},
		{slice("IPv4"), []string{"endpoints[0].addresses: Required value"}},
		{slice("IPv4", "fd00::1"), []string{`endpoints[0].addresses: Invalid value: "fd00::1": must be an IPv4 address`}},
		{slice("IPv6", "::ffff:1.2.3.4"), []string{"endpoints[0].addresses[0]: Invalid value"}},
		{slice("IPv4", "127.0.0.1"), []string{"may not be in the loopback range (127.0.0.0/8, ::1/128)"}},
		{slice("IPv4", "169.254.169.254"), []string{"may not be in the link-local range (169.254.0.0/16, fe80::/10)"}},
		{&discoveryv1.EndpointSlice{AddressType: "IPv4", Ports: []discoveryv1.EndpointPort{
			{Name: ptr.To("a"), Protocol: ptr.To(corev1.ProtocolTCP)}, {Name: ptr.To("a"), Protocol: ptr.To(corev1.Protocol("X"))}}}, []string{
			`ports[1].name: Duplicate value: "a"`,
			`ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`}},
		{&discoveryv1.EndpointSlice{AddressType: "IPv4", Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"},
			Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}, {Name: "a"}}}}}}, []string{
			`endpoints[0].hints.forZones[1].name: Duplicate value: "a"`}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), c.slice), c.want...)
	}
	old := slice("IPv4", "127.0.0.1")
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), old.DeepCopy(), old))
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), slice("IPv6", "fd00::1"), slice("IPv4", "10.0.0.1")),
		`addressType: Invalid value: null: field is immutable`)
}

func TestTopologyIsNotWritable(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "EndpointSlice")
	with := func(node, zone string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{DeprecatedTopology: map[string]string{corev1.LabelHostname: node, "zone": zone}}}}
	}
	created, kept, changed, unknown := with("a", "z"), with("a", "z"), with("a", "y"), with("b", "z")
	k.PrepareForCreate(t.Context(), created)
	k.PrepareForUpdate(t.Context(), kept, with("a", "z"))
	k.PrepareForUpdate(t.Context(), changed, with("a", "z"))
	k.PrepareForUpdate(t.Context(), unknown, with("a", "z"))
	for name, c := range map[string]struct {
		slice      *discoveryv1.EndpointSlice
		topology   bool
		node       string
		generation int64
	}{
		"created": {created, false, "", 1}, "kept": {kept, true, "", 0}, "changed": {changed, false, "a", 1}, "unknown": {unknown, false, "", 1},
	} {
		e := c.slice.Endpoints[0]
		if e.DeprecatedTopology != nil != c.topology || ptr.Deref(e.NodeName, "") != c.node || c.slice.Generation != c.generation {
			t.Errorf("%s: %+v", name, c.slice)
		}
	}
}

func TestWarnings(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "EndpointSlice")
	s := &discoveryv1.EndpointSlice{AddressType: "FQDN"}
	bad := &discoveryv1.EndpointSlice{AddressType: "IPv4", Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"010.0.0.1"}}}}
	ours := bad.DeepCopy()
	ours.Labels = map[string]string{discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}
	if a, b, c, d := k.Warnings(t.Context(), s, nil), k.Warnings(t.Context(), s, s), k.Warnings(t.Context(), bad, bad), k.Warnings(t.Context(), ours, nil); len(a) != 1 || len(b) != 0 || len(c) != 1 || len(d) != 0 {
		t.Errorf("%q, %q, %q, %q", a, b, c, d)
	}
}

func TestColumns(t *testing.T) {
	s := &discoveryv1.EndpointSlice{AddressType: "IPv4",
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"1", "2"}}, {Addresses: []string{"3", "4"}}},
		Ports:     []discoveryv1.EndpointPort{{Port: ptr.To[int32](80)}, {Name: ptr.To("x")}}}
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "EndpointSlice"), s)
	if names != "AddressType|Ports|Endpoints|Age" || cells[1] != "80,x" || cells[2] != "1,2,3 + 1 more..." {
		t.Errorf("columns %s, cells %q", names, cells)
	}
}
