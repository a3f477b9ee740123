package core_test

import (
	"net/netip"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	taken      = "provided IP is already allocated"
	takenPort  = "provided port is already allocated"
	wrongRange = "provided port is not in the valid range. The range of valid ports is 30000-32767"
)

type services struct {
	corev1client.ServiceInterface
	t *testing.T
}

func (s services) make(name string, change func(*corev1.ServiceSpec)) (*corev1.Service, error) {
	return s.Create(s.t.Context(), service(name, change), create)
}

func (s services) made(name string, change func(*corev1.ServiceSpec)) *corev1.Service {
	s.t.Helper()
	return ok[*corev1.Service](s.t)(s.make(name, change))
}

func (s services) changed(name string, change func(*corev1.ServiceSpec)) (*corev1.Service, error) {
	s.t.Helper()
	svc := ok[*corev1.Service](s.t)(s.Get(s.t.Context(), name, get))
	change(&svc.Spec)
	return s.Update(s.t.Context(), svc, update)
}

func (s services) delete(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if err := s.Delete(s.t.Context(), name, remove); err != nil {
			s.t.Fatal(err)
		}
	}
}

func service(name string, change func(*corev1.ServiceSpec)) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "a"}, Ports: []corev1.ServicePort{{Port: 80}}}}
	if change != nil {
		change(&svc.Spec)
	}
	return svc
}

func withIP(ip string) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.ClusterIP = ip }
}

func withNodePort(port int32) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, port }
}

func asType(typ corev1.ServiceType) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type = typ }
}

func TestServices(t *testing.T) {
	client, _ := start(t, t.TempDir())
	at := func(t *testing.T) services { return services{client.CoreV1().Services("default"), t} }
	t.Run("addresses", func(t *testing.T) { testAddresses(t, at(t)) })
	t.Run("node ports", func(t *testing.T) { testNodePorts(t, at(t)) })
	t.Run("types", func(t *testing.T) { testServiceTypes(t, at(t)) })
	t.Run("dry run", func(t *testing.T) { testServiceDryRun(t, at(t)) })
	t.Run("health check", func(t *testing.T) { testHealthCheckPort(t, at(t)) })
	t.Run("race", func(t *testing.T) { testAllocationRace(t, at(t)) })
	list := ok[*corev1.ServiceList](t)(client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}))
	records, err := client.NetworkingV1().IPAddresses().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(records.Items) != len(list.Items) || len(list.Items) != 1 {
		t.Errorf("%d services (want only kubernetes) hold %d addresses", len(list.Items), len(records.Items))
	}
}

func testAddresses(t *testing.T, s services) {
	prefix := netip.MustParsePrefix("10.96.0.0/12")
	a, b := s.made("a", nil), s.made("b", nil)
	for _, svc := range []*corev1.Service{a, b} {
		ip, err := netip.ParseAddr(svc.Spec.ClusterIP)
		if err != nil || !prefix.Contains(ip) {
			t.Errorf("%s has the address %q", svc.Name, svc.Spec.ClusterIP)
		}
		if spec := svc.Spec; len(spec.ClusterIPs) != 1 || spec.ClusterIPs[0] != spec.ClusterIP || len(spec.IPFamilies) != 1 ||
			spec.IPFamilies[0] != corev1.IPv4Protocol || spec.IPFamilyPolicy == nil || *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
			t.Errorf("families of %s: %+v", svc.Name, spec)
		}
	}
	if a.Spec.ClusterIP == b.Spec.ClusterIP {
		t.Errorf("two services have %s", a.Spec.ClusterIP)
	}
	s.made("chosen", withIP("10.96.77.7"))
	_, err := s.make("again", withIP("10.96.77.7"))
	wantError(t, err, `Service "again" is invalid: spec.clusterIPs: Invalid value: ["10.96.77.7"]: failed to allocate IP 10.96.77.7: `+taken)
	_, err = s.make("outside", withIP("10.200.0.1"))
	wantError(t, err, "failed to allocate IP 10.200.0.1: the provided network does not match the current range")
	_, err = s.changed("chosen", withIP("10.96.77.8"))
	wantError(t, err, "spec.clusterIPs[0]: Invalid value")
	s.delete("chosen")
	s.made("again", withIP("10.96.77.7"))
	if headless := s.made("headless", withIP("None")); headless.Spec.ClusterIPs[0] != "None" {
		t.Errorf("headless service has %v", headless.Spec.ClusterIPs)
	}
	s.delete("a", "b", "again", "headless")
}

func testNodePorts(t *testing.T, s services) {
	auto := s.made("auto", asType(corev1.ServiceTypeNodePort))
	if p := auto.Spec.Ports[0].NodePort; p < 30000 || p > 32767 {
		t.Errorf("node port %d", p)
	}
	s.made("chosen", withNodePort(30080))
	_, err := s.make("again", withNodePort(30080))
	wantError(t, err, `Service "again" is invalid: spec.ports[0].nodePort: Invalid value: 30080: `+takenPort)
	_, err = s.make("outside", withNodePort(80))
	wantError(t, err, "spec.ports[0].nodePort: Invalid value: 80: "+wrongRange)
	// One port may be used for both protocols of one service.
	s.made("dns", func(spec *corev1.ServiceSpec) {
		spec.Type = corev1.ServiceTypeNodePort
		spec.Ports = []corev1.ServicePort{{Name: "u", Port: 53, Protocol: corev1.ProtocolUDP, NodePort: 30053}, {Name: "t", Port: 53, NodePort: 30053}}
	})
	// A change of the port frees the old one.
	if _, err := s.changed("chosen", withNodePort(30081)); err != nil {
		t.Error(err)
	}
	s.made("again", withNodePort(30080))
	_, err = s.changed("again", withNodePort(30081))
	wantError(t, err, takenPort)
	s.delete("chosen")
	if _, err := s.changed("again", withNodePort(30081)); err != nil {
		t.Error(err)
	}
	s.delete("auto", "dns", "again")
}

func testServiceTypes(t *testing.T, s services) {
	svc := s.made("s", withNodePort(30090))
	ip := svc.Spec.ClusterIP
	svc = ok[*corev1.Service](t)(s.changed("s", asType(corev1.ServiceTypeClusterIP)))
	if svc.Spec.Ports[0].NodePort != 0 || svc.Spec.ClusterIP != ip {
		t.Errorf("as ClusterIP: %+v", svc.Spec)
	}
	s.made("other", withNodePort(30090))
	svc = ok[*corev1.Service](t)(s.changed("s", func(spec *corev1.ServiceSpec) {
		spec.Type, spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
	}))
	if svc.Spec.ClusterIP != "" || svc.Spec.ClusterIPs != nil || svc.Spec.IPFamilies != nil {
		t.Errorf("as ExternalName: %+v", svc.Spec)
	}
	s.made("heir", withIP(ip))
	svc = ok[*corev1.Service](t)(s.changed("s", func(spec *corev1.ServiceSpec) {
		spec.Type, spec.ExternalName = corev1.ServiceTypeLoadBalancer, ""
	}))
	if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == ip || svc.Spec.Ports[0].NodePort == 0 || svc.Spec.AllocateLoadBalancerNodePorts == nil {
		t.Errorf("as LoadBalancer: %+v", svc.Spec)
	}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
	svc = ok[*corev1.Service](t)(s.UpdateStatus(t.Context(), svc, update))
	if in := svc.Status.LoadBalancer.Ingress; len(in) != 1 || in[0].IPMode == nil || *in[0].IPMode != corev1.LoadBalancerIPModeVIP {
		t.Errorf("status: %+v", in)
	}
	svc = ok[*corev1.Service](t)(s.changed("s", asType(corev1.ServiceTypeClusterIP)))
	if len(svc.Status.LoadBalancer.Ingress) != 0 {
		t.Errorf("a ClusterIP service has a load balancer: %+v", svc.Status)
	}
	s.delete("s", "other", "heir")
}

func testServiceDryRun(t *testing.T, s services) {
	only := metav1.CreateOptions{DryRun: dryRun}
	try := service("try", withNodePort(30070))
	try.Spec.ClusterIP = "10.96.70.70"
	made := ok[*corev1.Service](t)(s.Create(t.Context(), try, only))
	if made.Spec.ClusterIP != "10.96.70.70" || made.Spec.Ports[0].NodePort != 30070 {
		t.Errorf("dry run: %+v", made.Spec)
	}
	s.made("real", func(spec *corev1.ServiceSpec) { withIP("10.96.70.70")(spec); withNodePort(30070)(spec) })
	_, err := s.Create(t.Context(), try, only)
	wantError(t, err, takenPort) // as upstream, a dry run looks at ports, not at addresses
	if err := s.Delete(t.Context(), "real", metav1.DeleteOptions{DryRun: dryRun}); err != nil {
		t.Error(err)
	}
	_, err = s.make("try", withIP("10.96.70.70"))
	wantError(t, err, taken)
	// A refused update must not free what the service keeps.
	_, err = s.changed("real", func(spec *corev1.ServiceSpec) {
		spec.Type = corev1.ServiceTypeClusterIP
		spec.Ports = append(spec.Ports, corev1.ServicePort{Port: 81})
	})
	wantError(t, err, "spec.ports[0].name: Required value")
	_, err = s.make("try", withNodePort(30070))
	wantError(t, err, takenPort)
	s.delete("real")
}

func testHealthCheckPort(t *testing.T, s services) {
	local := s.made("lb", func(spec *corev1.ServiceSpec) {
		spec.Type, spec.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	})
	port := local.Spec.HealthCheckNodePort
	if port == 0 || port == local.Spec.Ports[0].NodePort {
		t.Errorf("health check node port %d, node port %d", port, local.Spec.Ports[0].NodePort)
	}
	_, err := s.make("other", withNodePort(port))
	wantError(t, err, takenPort)
	changed := ok[*corev1.Service](t)(s.changed("lb", func(spec *corev1.ServiceSpec) {
		spec.ExternalTrafficPolicy, spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyCluster, 0
	}))
	if changed.Spec.HealthCheckNodePort != 0 {
		t.Errorf("health check node port %d stays", changed.Spec.HealthCheckNodePort)
	}
	s.made("other", withNodePort(port))
	s.delete("lb", "other")
}

// Of many that want the same address and port at the same time one gets them.
func testAllocationRace(t *testing.T, s services) {
	const racers = 16
	var wg sync.WaitGroup
	errs := make([]error, racers)
	name := func(i int) string { return "race-" + string(rune('a'+i)) }
	for i := range racers {
		wg.Go(func() {
			_, errs[i] = s.make(name(i), func(spec *corev1.ServiceSpec) { withIP("10.96.1.1")(spec); withNodePort(30001)(spec) })
		})
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
			s.delete(name(i))
		case !apierrors.IsInvalid(err):
			t.Errorf("loser: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d services got the same address", won)
	}
	s.made("after", func(spec *corev1.ServiceSpec) { withIP("10.96.1.1")(spec); withNodePort(30001)(spec) })
	s.delete("after")
}

func TestAllocationsOutliveServer(t *testing.T) {
	dir := t.TempDir()
	client, stop := start(t, dir)
	s := services{client.CoreV1().Services("default"), t}
	both := func(spec *corev1.ServiceSpec) { withIP("10.96.9.9")(spec); withNodePort(30009)(spec) }
	s.made("kept", both)
	stop()
	client, _ = start(t, dir)
	s = services{client.CoreV1().Services("default"), t}
	_, err := s.make("late", withIP("10.96.9.9"))
	wantError(t, err, taken)
	_, err = s.make("late", withNodePort(30009))
	wantError(t, err, takenPort)
	s.delete("kept")
	s.made("late", both)
}
