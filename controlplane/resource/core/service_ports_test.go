package core

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestPlanPorts(t *testing.T) {
	dns := func(tcp, udp int32) *corev1.Service {
		return &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{
			{Name: "a", Port: 53, Protocol: corev1.ProtocolTCP, NodePort: tcp}, {Name: "b", Port: 53, Protocol: corev1.ProtocolUDP, NodePort: udp}}}}
	}
	balancer := dns(30001, 30001)
	balancer.Spec.Type, balancer.Spec.ExternalTrafficPolicy, balancer.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 30002
	self := balancer.DeepCopy()
	self.Spec.HealthCheckNodePort = 30001
	twice := dns(30001, 30001)
	twice.Spec.Ports[1].Port = 54
	moved := balancer.DeepCopy()
	moved.Spec.HealthCheckNodePort = 1
	for name, c := range map[string]struct {
		now, was *corev1.Service
		asked    int
		any      int
		err      string // a part
	}{
		"new":                    {dns(0, 0), nil, 0, 1, ""},
		"new, one chosen":        {dns(0, 30001), nil, 1, 0, ""},
		"update to node ports":   {dns(0, 0), &corev1.Service{}, 0, 2, ""},
		"update, one was there":  {dns(30001, 0), dns(30001, 30002), 0, 1, ""},
		"new balancer":           {balancer, nil, 2, 0, ""},
		"its check may not move": {moved, balancer, 0, 0, ""},
		"one for two numbers":    {twice, nil, 0, 0, "spec.ports[1].nodePort: Invalid value: 30001: provided port is already allocated"},
		"so later":               {twice, dns(30001, 30002), 0, 0, ""},
		"checked at its own":     {self, nil, 0, 0, "failed to allocate requested HealthCheck NodePort 30001: provided port is already allocated"},
		"so later on":            {self, dns(30001, 30001), 0, 0, "failed to allocate requested HealthCheck NodePort 30001: provided port is already allocated"},
	} {
		p, err := planPorts(c.now, c.was)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
		if err != nil {
			continue
		}
		if len(p.request.Ports) != c.asked || p.request.Any != c.any {
			t.Errorf("%s: asks for %+v; want %d of its own and %d any", name, p.request, c.asked, c.any)
		}
	}
}
