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
	plan := planPorts(s, old)
	if len(plan.request.Ports) == 0 && plan.request.Any == 0 {
		return nil
	}
	chosen, err := a.ports.Take(ctx, ownerOf(s), plan.request, dryRun)
	if err != nil {
		return portError(s, err)
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
// one of them. On update each port gets its own: two that had others before must not be joined.
func planPorts(s, old *corev1.Service) portPlan {
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
		return p
	}
	if s.Spec.HealthCheckNodePort != 0 {
		ask(s.Spec.HealthCheckNodePort)
		return p
	}
	p.request.Any++
	p.health = true
	return p
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

// portError puts a refused port where the client wrote it.
func portError(s *corev1.Service, err error) error {
	var refused *nodeport.RefusedError
	if !errors.As(err, &refused) {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
	}
	for i, p := range s.Spec.Ports {
		if p.NodePort == refused.Port {
			path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
			return invalidService(s, field.ErrorList{field.Invalid(path, p.NodePort, refused.Error())})
		}
	}
	return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", refused.Port, refused))
}
