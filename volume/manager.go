package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume/turn"
)

// Config says where volumes live.
type Config struct {
	Root string       // the kubelet's folder, /var/lib/kubelet
	Log  *slog.Logger // optional
}

// Deps are the Manager's ways to the world.
type Deps struct {
	// GetConfigMap and GetSecret read an object; an error for which apierrors.IsNotFound holds means that it does not exist.
	GetConfigMap func(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	GetSecret    func(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token asks for a service account token; the answer's Status holds it.
	Token func(ctx context.Context, namespace, serviceAccount string, r *authv1.TokenRequest) (*authv1.TokenRequest, error)
	// TrustBundles lists the ClusterTrustBundle of a name, or those of a signer; one of them is empty.
	TrustBundles func(ctx context.Context, name, signer string) ([]certificatesv1.ClusterTrustBundle, error)
	// RequestCertificate asks for a pod's certificate: it fills in who the pod is and where it runs. GetCertificateRequest reads what was made.
	RequestCertificate    func(ctx context.Context, pod *corev1.Pod, spec certificatesv1.PodCertificateRequestSpec) (*certificatesv1.PodCertificateRequest, error)
	GetCertificateRequest func(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error)
	// GetClaim and GetVolume read a claim of a pod of this node and the volume it is bound to; without them claims are not served.
	GetClaim  func(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	GetVolume func(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	// Allocatable is the node's, for downward API limits that are not set.
	Allocatable func(ctx context.Context) (corev1.ResourceList, error)
	// Plugins come before the built-in ones; optional.
	Plugins []Plugin
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Manager makes and removes the volumes of a node's pods. Safe for concurrent use.
type Manager struct {
	cfg     Config
	deps    Deps
	tokens  *tokens
	issued  *certificates
	plugins []Plugin

	turns turn.Turns[types.UID]

	// single is taken in a pod's turn: of two pods that would be alone with a volume, one makes its folder first.
	single sync.Mutex

	meters meters
}

// New returns a Manager. Nothing is touched before the first call.
func New(cfg Config, deps Deps) *Manager {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	m := &Manager{cfg: cfg, deps: deps, meters: meters{gauges: map[types.UID]map[string]*gauge{}}, tokens: &tokens{now: deps.Now, request: deps.Token, m: map[tokenKey]token{}}}
	m.issued = &certificates{now: deps.Now, deps: &m.deps, m: map[certificateKey]*certificate{}}
	m.plugins = append(slices.Clone(deps.Plugins), m.builtin()...)
	return m
}

// Mount makes every volume that a container of the pod mounts (or uses as a device) ready and returns them by name. On an
// error the volumes that are ready stay; call again. The error names each volume that is not.
func (m *Manager) Mount(ctx context.Context, pod *corev1.Pod) (map[string]Mounted, error) {
	return m.each(ctx, pod, func(Plugin) bool { return true })
}

// Refresh brings the volumes whose content lives (configMap, secret, downwardAPI, projected with its tokens) up to date. Readers
// see each volume change at once.
func (m *Manager) Refresh(ctx context.Context, pod *corev1.Pod) error {
	_, err := m.each(ctx, pod, func(p Plugin) bool {
		_, live := p.(*content)
		_, timed := p.(Timed)
		return live || timed
	})
	return err
}

// RefreshAt is when the pod's first token or certificate wants to be replaced or its first volume wants another look; the zero time for never. Content
// that changes by events of the API is not in it.
func (m *Manager) RefreshAt(uid types.UID) time.Time {
	first := m.tokens.next(uid)
	if at := m.issued.next(uid); first.IsZero() || !at.IsZero() && at.Before(first) {
		first = at
	}
	for _, p := range m.plugins {
		if t, ok := p.(Timed); ok {
			if at := t.RefreshAt(uid); !at.IsZero() && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first
}

// Token returns a token of the pod's service account and when it expires, kept in memory until it has a fifth of its life left.
func (m *Manager) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds *int64) (string, time.Time, error) {
	p := &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: seconds}
	tok, err := m.tokens.find(ctx, pod, p)
	return tok.value, tok.expires, err
}

func (m *Manager) each(ctx context.Context, pod *corev1.Pod, want func(Plugin) bool) (map[string]Mounted, error) {
	done, err := m.turn(ctx, pod.UID)
	if err != nil {
		return nil, err
	}
	defer done()
	used, out := names(pod), map[string]Mounted{}
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if !used[v.Name] {
			continue
		}
		mounted, wanted, err := m.one(ctx, want, pod, v)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err))
		case wanted:
			out[v.Name] = mounted
		}
	}
	return out, errors.Join(errs...)
}

// one makes a volume ready, if its plugin is wanted. A claim's is known once its volume is.
func (m *Manager) one(ctx context.Context, want func(Plugin) bool, pod *corev1.Pod, v *corev1.Volume) (mounted Mounted, wanted bool, err error) {
	p, r, name := m.plugin(v), Request{Pod: pod, Volume: v}, v.Name
	if p == nil && (v.PersistentVolumeClaim != nil || v.Ephemeral != nil) {
		if err := m.bound(ctx, &r); err != nil {
			return Mounted{}, false, err
		}
		p, name = m.persistent(r.Persistent), r.Persistent.Name
	}
	if p == nil {
		return Mounted{}, false, unsupported(v)
	}
	if !want(p) {
		return Mounted{}, false, nil
	}
	r.Dir = filepath.Join(m.podDir(pod.UID), "volumes", p.Name(), name)
	if err := os.MkdirAll(filepath.Dir(r.Dir), 0o750); err != nil {
		return Mounted{}, false, err
	}
	if err := m.may(p, r); err != nil {
		return Mounted{}, false, err
	}
	mounted, err = p.Mount(ctx, r)
	mounted.ReadOnly = mounted.ReadOnly || r.ReadOnly
	mounted.Plugin = p.Name()
	if err == nil {
		m.note(p, r, mounted)
	}
	return mounted, true, err
}

func (m *Manager) plugin(v *corev1.Volume) Plugin {
	for _, p := range m.plugins {
		if p.Serves(v) {
			return p
		}
	}
	return nil
}

func unsupported(v *corev1.Volume) error {
	if v.GitRepo != nil {
		return errors.New("gitRepo volumes are not supported: they ran code of the repository on the node; clone in an init container instead")
	}
	return errors.New("no plugin on this node serves this kind of volume")
}

// names lists the volumes that the pod's containers use. Others are not made, as kubelet's users know it.
func names(pod *corev1.Pod) map[string]bool {
	used := map[string]bool{}
	add := func(c *corev1.Container) {
		for _, m := range c.VolumeMounts {
			used[m.Name] = true
		}
		for _, d := range c.VolumeDevices {
			used[d.Name] = true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			add(&list[i])
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		add(&c)
	}
	return used
}

func (m *Manager) podDir(uid types.UID) string { return filepath.Join(m.cfg.Root, "pods", string(uid)) }

// turn lets one call per pod run at a time.
func (m *Manager) turn(ctx context.Context, uid types.UID) (func(), error) {
	if uid == "" || filepath.Base(string(uid)) != string(uid) || uid == ".." || uid == "." {
		return nil, fmt.Errorf("volume: pod UID %q is not usable as a folder name", uid)
	}
	done, err := m.turns.Take(ctx, uid)
	if err != nil {
		return nil, fmt.Errorf("volume: waiting for another call for pod %s: %w", uid, err)
	}
	return done, nil
}
