package endpointslice

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func handMade(subsets ...corev1.EndpointSubset) *corev1.Endpoints {
	return &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "ns", UID: "e", Labels: map[string]string{"l": "v"},
		Annotations: map[string]string{"note": "x", corev1.LastAppliedConfigAnnotation: "{}"}}, Subsets: subsets}
}

func subset(ready, not string, port int32) corev1.EndpointSubset {
	s := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "p", Port: port, Protocol: corev1.ProtocolTCP}}}
	for _, ip := range strings.Fields(ready) {
		s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: ip})
	}
	for _, ip := range strings.Fields(not) {
		s.NotReadyAddresses = append(s.NotReadyAddresses, corev1.EndpointAddress{IP: ip})
	}
	return s
}

func TestMirror(t *testing.T) {
	e, st := handMade(subset("192.0.2.1 fd00::1 300.1.1.1", "192.0.2.2", 80), subset("192.0.2.3 192.0.2.1", "", 80), subset("192.0.2.1", "", 81)), &store{}
	c, skipped := planMirror(e, nil)
	st.apply(c)
	got := map[string]int{}
	for _, s := range st.slices {
		got[fmt.Sprintf("%s %d", s.AddressType, *s.Ports[0].Port)] = len(s.Endpoints)
		if s.Labels[discoveryv1.LabelServiceName] != "db" || s.Labels[discoveryv1.LabelManagedBy] != mirrorManagedBy || s.Labels["l"] != "v" ||
			len(s.Annotations) != 1 || s.OwnerReferences[0].Kind != "Endpoints" {
			t.Errorf("slice %+v", s.ObjectMeta)
		}
	}
	if len(got) != 3 || got["IPv4 80"] != 3 || got["IPv6 80"] != 1 || got["IPv4 81"] != 1 || skipped.invalid != 1 {
		t.Errorf("slices %v, skipped %+v", got, skipped)
	}
	if c, _ := planMirror(e, st.slices); len(c.create)+len(c.update)+len(c.remove) != 0 {
		t.Errorf("what is right is changed: %+v", c)
	}
	e.Subsets = e.Subsets[:1]
	e.Subsets[0].Addresses = e.Subsets[0].Addresses[:1]
	c, _ = planMirror(e, st.slices)
	if st.apply(c); len(st.slices) != 1 || len(st.slices[0].Endpoints) != 2 {
		t.Errorf("after it shrank: %+v", st.slices)
	}
	e.Subsets = nil
	c, _ = planMirror(e, st.slices)
	if st.apply(c); len(st.slices) != 0 {
		t.Errorf("without addresses: %+v", st.slices)
	}
}

func TestMirrorIsBounded(t *testing.T) {
	var ips []string
	for i := range perSubset + 5 {
		ips = append(ips, fmt.Sprintf("10.0.%d.%d", i/250, i%250))
	}
	c, skipped := planMirror(handMade(subset(strings.Join(ips, " "), "", 80)), nil)
	if len(c.create) != perSubset/perSlice || skipped.many != 5 {
		t.Errorf("%d slices, skipped %+v", len(c.create), skipped)
	}
}

func TestMirrored(t *testing.T) {
	for key, want := range map[string]bool{"": true, "control-plane.alpha.kubernetes.io/leader": false} {
		if got := mirrored(&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{key: "{}"}}}); got != want {
			t.Errorf("with annotation %q: %t", key, got)
		}
	}
	if mirrored(&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}}}) {
		t.Error("what says that it is not to be mirrored is mirrored")
	}
}
