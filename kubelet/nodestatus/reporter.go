package nodestatus

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/kubelet/criclient"
)

// Config of a Reporter; see kubelet.Config for what each field means.
type Config struct {
	Name, Hostname, ProviderID, Version string
	IPs                                 []netip.Addr
	Labels                              map[string]string
	Taints                              []corev1.Taint
	PodCIDRs                            []string
	MaxPods                             int
	Reserved                            corev1.ResourceList
	Root                                string // the filesystem of ephemeral storage
	ServerAddr                          string // whose port is the node's daemon endpoint
	StatusEvery, LeaseEvery             time.Duration
}

// Deps of a Reporter; all required unless said otherwise.
type Deps struct {
	Client kubernetes.Interface
	CRI    *criclient.Client
	// Node returns the API's node as last seen, or an error.
	Node func() (*corev1.Node, error)
	// Devices is what device plugins add to the node's capacity, and how much of it is healthy; optional.
	Devices func() (capacity, allocatable corev1.ResourceList)
	// InUse names the attached volumes that are in use; optional.
	InUse func() []corev1.UniqueVolumeName
	Log   *slog.Logger
}

// Pressure is what the node is short of, with a sentence for each; "" means no pressure.
type Pressure struct{ Memory, Disk, PID string }

// Reporter reports one node.
type Reporter struct {
	cfg  Config
	deps Deps
	wake chan struct{}

	mu       sync.Mutex
	pressure Pressure                     // guarded by mu
	leaving  bool                         // guarded by mu
	brought  map[corev1.ResourceName]bool // resources that device plugins have brought; guarded by mu
}

// New makes a Reporter.
func New(cfg Config, d Deps) *Reporter {
	if len(cfg.IPs) == 0 {
		cfg.IPs = defaultIPs()
	}
	if d.Devices == nil {
		d.Devices = func() (_, _ corev1.ResourceList) { return nil, nil }
	}
	return &Reporter{cfg: cfg, deps: d, wake: make(chan struct{}, 1), brought: map[corev1.ResourceName]bool{}}
}

// Addresses are the node's own, the primary one first.
func (r *Reporter) Addresses() []string {
	var out []string
	for _, ip := range r.cfg.IPs {
		out = append(out, ip.String())
	}
	return out
}

// SetPressure notes what the node is short of; a change is reported at once.
func (r *Reporter) SetPressure(p Pressure) {
	r.mu.Lock()
	changed := (r.pressure.Memory == "") != (p.Memory == "") || (r.pressure.Disk == "") != (p.Disk == "") ||
		(r.pressure.PID == "") != (p.PID == "")
	r.pressure = p
	r.mu.Unlock()
	if changed {
		r.Wake()
	}
}

// SetLeaving notes that the machine shuts down, so that nobody counts on the node any more, or that it does not.
func (r *Reporter) SetLeaving(yes bool) {
	r.mu.Lock()
	r.leaving = yes
	r.mu.Unlock()
	r.Wake()
}

// Wake has the status reported now if it has changed.
func (r *Reporter) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run registers the node and keeps its status and Lease until ctx ends. ready is called once, when the API has
// accepted the node as Ready.
func (r *Reporter) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	node, err := r.registered(ctx)
	if err != nil {
		return nil // only when ctx ended
	}
	seconds := int32(4 * r.cfg.LeaseEvery / time.Second)
	leases := lease.NewController(clock.RealClock{}, r.deps.Client, r.cfg.Name, max(seconds, 1), nil, r.cfg.LeaseEvery,
		r.cfg.Name, corev1.NamespaceNodeLease, r.own)
	wg.Go(func() { leases.Run(ctx) }) // ends with ctx
	delay, isReady := 25*time.Millisecond, false
	var reported time.Time
	for {
		node, err = r.report(ctx, node, time.Since(reported) >= r.cfg.StatusEvery, &reported)
		switch {
		case ctx.Err() != nil:
			return nil
		case apierrors.IsNotFound(err):
			r.deps.Log.Warn("the node object is gone: registering again", "node", r.cfg.Name)
			if node, err = r.registered(ctx); err != nil {
				return nil
			}
			continue
		case err != nil:
			r.deps.Log.Warn("report node status: will try again", "err", err)
		case !isReady && IsReady(node):
			isReady = true
			ready()
		}
		if isReady && err == nil {
			delay = r.cfg.LeaseEvery
		} else {
			delay = min(2*delay, r.cfg.LeaseEvery)
		}
		if !r.sleep(ctx, delay) {
			return nil
		}
	}
}

func (r *Reporter) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-r.wake:
	case <-t.C:
	}
	return true
}

// own makes the node the owner of its Lease, so that it goes with it.
func (r *Reporter) own(l *coordv1.Lease) error {
	n, err := r.deps.Node()
	if err != nil {
		return nil // the next renewal does it
	}
	l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
	return nil
}

// IsReady tells whether a node's Ready condition is true.
func IsReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// registered makes sure that the node object is there, however long it takes. The error is ctx's.
func (r *Reporter) registered(ctx context.Context) (*corev1.Node, error) {
	for delay := 25 * time.Millisecond; ; delay = min(2*delay, 2*time.Second) {
		n, err := r.register(ctx)
		if err == nil {
			return n, nil
		}
		if ctx.Err() == nil {
			r.deps.Log.Warn("register node: will try again", "node", r.cfg.Name, "err", err)
		}
		if !r.sleep(ctx, delay) {
			return nil, ctx.Err()
		}
	}
}

// roleLabel is the prefix of labels that nodes may not give to themselves (admission NodeRestriction).
const roleLabel = "node-role.kubernetes.io/"

// register creates the node or brings the labels of one that is there up to date. Where the API forbids role labels,
// the node comes without them: giving roles is the cluster's affair, being there is ours.
func (r *Reporter) register(ctx context.Context) (*corev1.Node, error) {
	nodes := r.deps.Client.CoreV1().Nodes()
	want, err := r.initial(ctx)
	if err != nil {
		return nil, err
	}
	n, err := nodes.Get(ctx, r.cfg.Name, metav1.GetOptions{})
	if err == nil {
		return r.relabel(ctx, n, want.Labels)
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read node: %w", err)
	}
	n, err = nodes.Create(ctx, want, metav1.CreateOptions{})
	if apierrors.IsForbidden(err) && withoutRoles(want.Labels) {
		r.deps.Log.Info("the API keeps role labels to itself: registering without them", "node", r.cfg.Name)
		n, err = nodes.Create(ctx, want, metav1.CreateOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("create node: %w", err)
	}
	return n, nil
}

// withoutRoles deletes role labels and tells whether there were any.
func withoutRoles(labels map[string]string) bool {
	had := len(labels)
	maps.DeleteFunc(labels, func(k, _ string) bool { return strings.HasPrefix(k, roleLabel) })
	return len(labels) < had
}

// relabel adds to a node that is there what its kubelet says of it; labels of others stay.
func (r *Reporter) relabel(ctx context.Context, n *corev1.Node, want map[string]string) (*corev1.Node, error) {
	out := n.DeepCopy()
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	maps.Copy(out.Labels, want)
	if maps.Equal(out.Labels, n.Labels) {
		return n, nil
	}
	now, err := r.deps.Client.CoreV1().Nodes().Update(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsForbidden(err) && withoutRoles(want) {
		return r.relabel(ctx, n, want)
	}
	if err != nil {
		return nil, fmt.Errorf("update labels of node: %w", err)
	}
	return now, nil
}

// report reads the machine and the runtime and writes the status if it differs from the API's, or if it is time.
func (r *Reporter) report(ctx context.Context, have *corev1.Node, due bool, reported *time.Time) (*corev1.Node, error) {
	if seen, err := r.deps.Node(); err == nil && newer(seen, have) {
		have = seen
	}
	in, err := r.snapshot(ctx, due)
	if err != nil {
		return have, err
	}
	want := have.DeepCopy()
	r.status(want, in, due)
	if !due && equality.Semantic.DeepEqual(ignoreHeartbeat(have.Status), ignoreHeartbeat(want.Status)) {
		return have, nil
	}
	patch, err := statusPatch(have, want)
	if err != nil {
		return have, fmt.Errorf("compare the node's status: %w", err)
	}
	now, err := r.deps.Client.CoreV1().Nodes().Patch(ctx, r.cfg.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return have, err
	}
	if IsReady(now) != IsReady(want) { // somebody gave the node up meanwhile, and the patch did not say otherwise
		r.Wake()
	}
	*reported = time.Now()
	return now, nil
}

func newer(a, b *corev1.Node) bool {
	return b == nil || a.UID != b.UID || len(a.ResourceVersion) > len(b.ResourceVersion) ||
		len(a.ResourceVersion) == len(b.ResourceVersion) && a.ResourceVersion > b.ResourceVersion
}

func ignoreHeartbeat(s corev1.NodeStatus) corev1.NodeStatus {
	s = *s.DeepCopy()
	for i := range s.Conditions {
		s.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return s
}
