package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/network/netfilter"
)

// Config is the node's place.
type Config struct {
	PodCIDR netip.Prefix  // addresses of this node's pods
	Extra   []Pod         // endpoints that are no pods: the cluster DNS address as kube-system's k8s-app=kube-dns
	Ready   time.Duration // how long Admit waits for the first complete state; default 10 s
	Retry   time.Duration // after a failed transaction; default 1 s
	Log     *slog.Logger  // optional
}

// Filter is the packet filter; netfilter's IPTables and Fake are ones.
type Filter interface {
	Apply(ctx context.Context, owner netfilter.Owner, s netfilter.Set) error
}

// Engine keeps the rules of a node current. Feed it objects, call Synced when all that exist were fed, and Run it once.
type Engine struct {
	cfg    Config
	filter Filter
	wake   chan struct{}
	// follows are the informers' handlers; set before Run.
	follows []cache.InformerSynced

	mu         sync.Mutex
	policies   map[string]*networkingv1.NetworkPolicy
	namespaces map[string]labels.Set
	pods       map[string]podInfo // by UID
	admitted   map[netip.Addr]admission
	synced     bool
	wanted     uint64        // counts changes
	applied    uint64        // the change that the kernel has
	moved      chan struct{} // closed and replaced whenever applied moves
}

type podInfo struct {
	Pod
	uid  string
	addr []netip.Addr
	done bool
}

type admission struct{ namespace, name, uid string }

// New returns an engine without any object.
func New(cfg Config, f Filter) *Engine {
	if cfg.Ready == 0 {
		cfg.Ready = 10 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, filter: f, wake: make(chan struct{}, 1), policies: map[string]*networkingv1.NetworkPolicy{},
		namespaces: map[string]labels.Set{}, pods: map[string]podInfo{}, admitted: map[netip.Addr]admission{}, moved: make(chan struct{})}
}

// change runs f under the lock and has the rules looked at if it says so.
func (e *Engine) change(f func() bool) {
	e.mu.Lock()
	changed := f()
	if changed {
		e.wanted++
	}
	e.mu.Unlock()
	if changed {
		e.poke()
	}
}

func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// SetPolicy adds or replaces a policy. The object must not be changed afterwards.
func (e *Engine) SetPolicy(np *networkingv1.NetworkPolicy) {
	e.change(func() bool { e.policies[np.Namespace+"/"+np.Name] = np; return true })
}

// DeletePolicy removes one.
func (e *Engine) DeletePolicy(namespace, name string) {
	e.change(func() bool { delete(e.policies, namespace+"/"+name); return true })
}

// SetNamespace adds or replaces a namespace's labels.
func (e *Engine) SetNamespace(ns *corev1.Namespace) {
	e.change(func() bool {
		old, ok := e.namespaces[ns.Name]
		e.namespaces[ns.Name] = ns.Labels
		return len(e.policies) > 0 && !(ok && maps.Equal(old, labels.Set(ns.Labels)))
	})
}

// DeleteNamespace removes one.
func (e *Engine) DeleteNamespace(name string) {
	e.change(func() bool { delete(e.namespaces, name); return len(e.policies) > 0 })
}

// SetPod adds or replaces a pod, of any node. Pods in the host's network are not subject to policies.
func (e *Engine) SetPod(p *corev1.Pod) {
	if p.Spec.HostNetwork {
		return
	}
	info := podInfo{Pod: Pod{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels}, uid: nodeUID(p),
		done: p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil && a.Is4() {
			info.addr = append(info.addr, a)
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			for _, port := range c.Ports {
				if port.Name != "" {
					info.Ports = append(info.Ports, NamedPort{port.Name, protocol(port.Protocol), uint16(port.ContainerPort)})
				}
			}
		}
	}
	e.change(func() bool {
		old, ok := e.pods[info.uid]
		e.pods[info.uid] = info
		return len(e.policies) > 0 && !(ok && maps.Equal(old.Labels, info.Labels) && slices.Equal(old.addr, info.addr) && old.done == info.done)
	})
}

func protocol(p corev1.Protocol) string {
	if p == "" {
		return "tcp"
	}
	return strings.ToLower(string(p))
}

// DeletePod removes one.
func (e *Engine) DeletePod(p *corev1.Pod) {
	e.change(func() bool { delete(e.pods, nodeUID(p)); return len(e.policies) > 0 })
}

// nodeUID is the pod's UID as its node knows it: a static pod's mirror has another in the API.
func nodeUID(p *corev1.Pod) string {
	if uid := p.Annotations[corev1.MirrorPodAnnotationKey]; uid != "" {
		return uid
	}
	return string(p.UID)
}

// Synced says that everything which exists was fed: from here on there are rules.
func (e *Engine) Synced() { e.change(func() bool { e.synced = true; return true }) }

// Restore tells of a pod that has its address since an earlier process; it does not wait.
func (e *Engine) Restore(namespace, name, uid string, a netip.Addr) {
	e.change(func() bool { e.admitted[a] = admission{namespace, name, uid}; return len(e.policies) > 0 })
}

// Admit tells of a pod that is about to use the address, and returns when its policies are in the kernel. It fails when the engine
// has not been fed in time, or ctx ends: then the pod must not start.
func (e *Engine) Admit(ctx context.Context, namespace, name, uid string, a netip.Addr) error {
	e.mu.Lock()
	e.admitted[a] = admission{namespace, name, uid}
	need := !e.synced
	for _, np := range e.policies {
		need = need || np.Namespace == namespace
	}
	if need {
		e.wanted++
	}
	target := e.wanted
	e.mu.Unlock()
	if !need {
		return nil
	}
	e.poke()
	ctx, cancel := context.WithTimeoutCause(ctx, e.cfg.Ready, errors.New("the node's network policies are not known or not applied in time"))
	defer cancel()
	for {
		e.mu.Lock()
		done, moved := e.applied >= target, e.moved
		e.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			e.Forget(a)
			return fmt.Errorf("policy: pod %s/%s: %w", namespace, name, context.Cause(ctx))
		}
	}
}

// Forget takes the address back, before another pod may have it. Idempotent.
func (e *Engine) Forget(a netip.Addr) {
	e.change(func() bool {
		_, ok := e.admitted[a]
		delete(e.admitted, a)
		return ok && len(e.policies) > 0
	})
}

// Run keeps the rules until ctx ends; they stay in force afterwards.
func (e *Engine) Run(ctx context.Context) error {
	if len(e.follows) > 0 {
		if !cache.WaitForCacheSync(ctx.Done(), e.follows...) {
			return nil
		}
		e.Synced()
	}
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		case <-retry:
		}
		retry = nil
		s, version, ok := e.state()
		if !ok {
			continue
		}
		if err := e.filter.Apply(ctx, netfilter.Policy, Compile(s)); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			e.cfg.Log.Error("network policies are not up to date; trying again", "error", err, "after", e.cfg.Retry)
			retry = time.After(e.cfg.Retry)
			continue
		}
		e.mu.Lock()
		e.applied = version
		close(e.moved)
		e.moved = make(chan struct{})
		e.mu.Unlock()
	}
}

// state copies what the rules follow from.
func (e *Engine) state() (State, uint64, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.synced {
		return State{}, 0, false
	}
	s := State{Namespaces: maps.Clone(e.namespaces), Pods: slices.Clone(e.cfg.Extra)}
	for _, np := range e.policies {
		s.Policies = append(s.Policies, np)
	}
	for a, who := range e.admitted {
		p := Pod{Namespace: who.namespace, Name: who.name, Addr: a, Unknown: true, Local: true}
		if info, ok := e.pods[who.uid]; ok {
			p.Unknown, p.Labels, p.Ports = false, info.Labels, info.Ports
		}
		s.Pods = append(s.Pods, p)
	}
	for _, info := range e.pods {
		for _, a := range info.addr {
			// Of two pods that claim an address the one that was admitted here has it.
			if _, taken := e.admitted[a]; taken || info.done {
				continue
			}
			p := info.Pod
			p.Addr, p.Local = a, e.cfg.PodCIDR.Contains(a)
			s.Pods = append(s.Pods, p)
		}
	}
	return s, e.wanted, true
}
