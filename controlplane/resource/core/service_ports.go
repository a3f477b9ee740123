package core

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/core/nodeport"
)

// takePorts takes all node ports that s needs and old does not have, in one step, and writes them into s.
func (a *allocator) takePorts(ctx context.Context, s, old *corev1.Service, dryRun bool, taken *holding) error {
	plan, err := planPorts(s, old)
	if err != nil {
		return err
	}
	if len(plan.request.Ports) == 0 && plan.request.Any == 0 {
		return nil
	}
	chosen, err := a.ports.Take(ctx, ownerOf(s), plan.request, dryRun)
	if err != nil {
		return ledgerError(s, err)
	}
	plan.fill(s, chosen)
	if !dryRun {
		taken.ports = append(slices.Clone(plan.request.Ports), chosen...)
	}
	return nil
}

// portPlan is what to ask the ledger for and where the answers go.
type portPlan struct {
	request nodeport.Request
	// ports are the indices of spec.ports that each chosen port goes to; health is whether the last one is the
	// health check's.
	ports  [][]int
	health bool
}

// planPorts decides on the node ports of s. Old, nil on create, holds some already.
// A new Service's ports of the same number but other protocols share one node port, also one that the client chose for
// one of them; ports of other numbers may not. On update each port gets its own: two that had others before must not be joined.
func planPorts(s, old *corev1.Service) (portPlan, error) {
	var p portPlan
	var had []int32
	if old != nil {
		had = holdingOf(old).ports
	}
	ask := func(port int32) {
		if !slices.Contains(had, port) && !slices.Contains(p.request.Ports, port) {
			p.request.Ports = append(p.request.Ports, port)
		}
	}
	if hasNodePortType(s) {
		byPort := map[int32]int{} // the place in p.ports of those that share
		for i, sp := range s.Spec.Ports {
			if sp.NodePort != 0 {
				if old == nil && slices.ContainsFunc(s.Spec.Ports[:i], func(p corev1.ServicePort) bool { return p.NodePort == sp.NodePort && p.Port != sp.Port }) {
					return p, portError(s, i, nodeport.ErrTaken)
				}
				ask(sp.NodePort)
				continue
			}
			if !wantsNodePorts(s) {
				continue
			}
			if shared := sharedNodePort(s, i); shared != 0 && old == nil {
				s.Spec.Ports[i].NodePort = shared
				ask(shared)
				continue
			}
			if at, ok := byPort[sp.Port]; ok && old == nil {
				p.ports[at] = append(p.ports[at], i)
				continue
			}
			byPort[sp.Port] = len(p.ports)
			p.ports = append(p.ports, []int{i})
			p.request.Any++
		}
	}
	if !needsHealthCheck(s) || old != nil && needsHealthCheck(old) { // it may not change
		return p, nil
	}
	if port := s.Spec.HealthCheckNodePort; port != 0 {
		if slices.Contains(had, port) || slices.Contains(p.request.Ports, port) {
			return p, healthPortError(port, nodeport.ErrTaken) // the Service's own: one of the two could not listen
		}
		ask(port)
		return p, nil
	}
	p.request.Any++
	p.health = true
	return p, nil
}

// sharedNodePort is the node port that the client chose for the same port number elsewhere in the list, else 0.
func sharedNodePort(s *corev1.Service, i int) int32 {
	for j, other := range s.Spec.Ports {
		if j != i && other.Port == s.Spec.Ports[i].Port && other.NodePort != 0 {
			return other.NodePort
		}
	}
	return 0
}

func (p portPlan) fill(s *corev1.Service, chosen []int32) {
	for at, indices := range p.ports {
		for _, i := range indices {
			s.Spec.Ports[i].NodePort = chosen[at]
		}
	}
	if p.health {
		s.Spec.HealthCheckNodePort = chosen[len(chosen)-1]
	}
}

// ledgerError puts a port that the ledger refused where the client wrote it.
func ledgerError(s *corev1.Service, err error) error {
	var refused *nodeport.RefusedError
	if !errors.As(err, &refused) {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
	}
	for i, p := range s.Spec.Ports {
		if p.NodePort == refused.Port {
			return portError(s, i, refused)
		}
	}
	return healthPortError(refused.Port, refused)
}

func portError(s *corev1.Service, i int, err error) error {
	path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
	return invalidService(s, field.ErrorList{field.Invalid(path, s.Spec.Ports[i].NodePort, err.Error())})
}

func healthPortError(port int32, err error) error {
	return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", port, err))
}
