package volume

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume/atomicdir"
	"keelson.dev/keelson/volume/configmap"
	"keelson.dev/keelson/volume/downward"
	"keelson.dev/keelson/volume/emptydir"
	"keelson.dev/keelson/volume/hostpath"
	"keelson.dev/keelson/volume/mount"
	"keelson.dev/keelson/volume/projected"
	"keelson.dev/keelson/volume/secret"
)

func (m *Manager) builtin() []Plugin {
	files := func(name string, serves func(*corev1.Volume) bool, tmpfs bool, f fileList) Plugin {
		return &content{m: m, name: "kubernetes.io~" + name, serves: serves, tmpfs: tmpfs, files: f}
	}
	return []Plugin{
		emptyDir{}, hostPath{}, &localVolume{m: m}, &nfs{}, imageVolume{},
		files("configmap", func(v *corev1.Volume) bool { return v.ConfigMap != nil }, false, m.configMapFiles),
		files("secret", func(v *corev1.Volume) bool { return v.Secret != nil }, true, m.secretFiles),
		files("downward-api", func(v *corev1.Volume) bool { return v.DownwardAPI != nil }, true, m.downwardFiles),
		files("projected", func(v *corev1.Volume) bool { return v.Projected != nil }, true, m.projectedFiles),
	}
}

// emptyDir is a folder that lives as long as the pod.
type emptyDir struct{}

func (emptyDir) Name() string                 { return "kubernetes.io~empty-dir" }
func (emptyDir) Serves(v *corev1.Volume) bool { return v.EmptyDir != nil }

func (emptyDir) Mount(_ context.Context, r Request) (Mounted, error) {
	if err := emptydir.Make(r.Dir, r.Volume.EmptyDir); err != nil {
		return Mounted{}, err
	}
	if g := fsGroup(r.Pod); g != nil {
		var st unix.Stat_t
		if err := unix.Lstat(r.Dir, &st); err != nil {
			return Mounted{}, err
		}
		// Only a new folder: what a running pod has made in it is its own affair.
		if int64(st.Gid) != *g || st.Mode&unix.S_ISGID == 0 {
			if err := mount.Owner(r.Dir, *g, false); err != nil {
				return Mounted{}, err
			}
		}
	}
	return Mounted{HostPath: r.Dir}, nil
}

func (emptyDir) Unmount(_ context.Context, _ types.UID, _, dir string) error {
	return mount.Unmount(dir)
}

// hostPath is a path of the node; nothing is made below the pod's folder.
type hostPath struct{}

func (hostPath) Name() string                 { return "kubernetes.io~host-path" }
func (hostPath) Serves(v *corev1.Volume) bool { return v.HostPath != nil }

// ServesPersistent implements PersistentPlugin.
func (hostPath) ServesPersistent(pv *corev1.PersistentVolume) bool { return pv.Spec.HostPath != nil }

func (hostPath) Mount(ctx context.Context, r Request) (Mounted, error) {
	source := r.Volume.HostPath
	if r.Persistent != nil {
		source = r.Persistent.Spec.HostPath
	}
	typ := corev1.HostPathUnset
	if source.Type != nil {
		typ = *source.Type
	}
	check := func() (struct{}, error) { return struct{}{}, hostpath.Check(source.Path, typ) }
	if _, err := mount.Patient(ctx, source.Path, check, nil); err != nil {
		return Mounted{}, err
	}
	return Mounted{HostPath: source.Path, Block: wantsBlock(r.Persistent)}, nil
}

func (hostPath) Unmount(context.Context, types.UID, string, string) error { return nil }

// imageVolume is mounted by the runtime from its image store; the kubelet passes the reference over CRI.
type imageVolume struct{}

func (imageVolume) Name() string                 { return "kubernetes.io~image" }
func (imageVolume) Serves(v *corev1.Volume) bool { return v.Image != nil }
func (imageVolume) Mount(context.Context, Request) (Mounted, error) {
	return Mounted{ReadOnly: true}, nil
}
func (imageVolume) Unmount(context.Context, types.UID, string, string) error { return nil }

type fileList func(ctx context.Context, r Request) (map[string]atomicdir.File, error)

// content is a volume whose files come from API objects.
type content struct {
	m      *Manager
	name   string
	serves func(*corev1.Volume) bool
	tmpfs  bool // its files must not reach a disk
	files  fileList
}

func (c *content) Name() string                 { return c.name }
func (c *content) Serves(v *corev1.Volume) bool { return c.serves(v) }

func (c *content) Mount(ctx context.Context, r Request) (Mounted, error) {
	files, err := c.files(ctx, r)
	if err != nil {
		return Mounted{}, err
	}
	if c.tmpfs {
		err = mount.Tmpfs(r.Dir, 0, 0o777)
	} else {
		err = os.MkdirAll(r.Dir, 0o777)
	}
	if err != nil {
		return Mounted{}, err
	}
	if err := os.Chmod(r.Dir, 0o777); err != nil {
		return Mounted{}, err
	}
	g := fsGroup(r.Pod)
	changed, err := atomicdir.Write(r.Dir, files, c.m.deps.Now(), func(rev string) error {
		if g == nil {
			return nil
		}
		return mount.Owner(rev, *g, true)
	})
	if err != nil {
		return Mounted{}, err
	}
	if changed && g != nil {
		if err := os.Chown(r.Dir, -1, int(*g)); err != nil {
			return Mounted{}, err
		}
		if err := os.Chmod(r.Dir, os.ModeSetgid|0o777); err != nil {
			return Mounted{}, err
		}
	}
	return Mounted{HostPath: r.Dir, ReadOnly: true, Live: true}, nil
}

func (c *content) Unmount(_ context.Context, uid types.UID, _, dir string) error {
	c.m.tokens.forget(uid)
	c.m.issued.forget(uid)
	return mount.Unmount(dir)
}

func (m *Manager) configMapFiles(ctx context.Context, r Request) (map[string]atomicdir.File, error) {
	v := r.Volume.ConfigMap
	cm, err := m.ConfigMap(ctx, r.Pod.Namespace, v.Name)
	if err != nil {
		return nil, err
	}
	return configmap.Files(v.Name, cm, v.Items, modeOr(v.DefaultMode), isSet(v.Optional))
}

func (m *Manager) secretFiles(ctx context.Context, r Request) (map[string]atomicdir.File, error) {
	v := r.Volume.Secret
	s, err := m.Secret(ctx, r.Pod.Namespace, v.SecretName)
	if err != nil {
		return nil, err
	}
	return secret.Files(v.SecretName, s, v.Items, modeOr(v.DefaultMode), isSet(v.Optional))
}

func (m *Manager) downwardFiles(ctx context.Context, r Request) (map[string]atomicdir.File, error) {
	return downward.Files(r.Pod, r.Volume.DownwardAPI.Items, modeOr(r.Volume.DownwardAPI.DefaultMode), func() (corev1.ResourceList, error) { return m.deps.Allocatable(ctx) })
}

func (m *Manager) projectedFiles(ctx context.Context, r Request) (map[string]atomicdir.File, error) {
	return projected.Files(ctx, r.Pod, r.Volume.Projected, projected.Owner{UID: onlyUser(r.Pod), Group: fsGroup(r.Pod)}, sources{m})
}

// ConfigMap reads one, for the sources of projected volumes; nil without an error when there is none.
func (m *Manager) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	cm, err := m.deps.GetConfigMap(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configmap %q: %w", name, err)
	}
	return cm, nil
}

// Secret reads one; nil without an error when there is none.
func (m *Manager) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	s, err := m.deps.GetSecret(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", name, err)
	}
	return s, nil
}

// sources answers the projected package.
type sources struct{ *Manager }

func (s sources) Token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (string, error) {
	return s.tokens.get(ctx, pod, p)
}

func (s sources) Certificate(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection) (key, chain []byte, err error) {
	return s.issued.get(ctx, pod, p)
}

func (s sources) Allocatable(ctx context.Context) (corev1.ResourceList, error) {
	return s.deps.Allocatable(ctx)
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// onlyUser is the user that every container of the pod runs as, if the spec says one and the same for all.
func onlyUser(pod *corev1.Pod) *int64 {
	var podUser, only *int64
	if pod.Spec.SecurityContext != nil {
		podUser = pod.Spec.SecurityContext.RunAsUser
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			u := podUser
			if sc := list[i].SecurityContext; sc != nil && sc.RunAsUser != nil {
				u = sc.RunAsUser
			}
			if u == nil || (only != nil && *only != *u) {
				return nil
			}
			only = u
		}
	}
	return only
}

func modeOr(m *int32) int32 {
	if m == nil {
		return 0o644
	}
	return *m
}

func isSet(b *bool) bool { return b != nil && *b }
