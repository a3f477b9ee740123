package csi

import (
	"context"
	"net"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/volume"
	"keelson.dev/keelson/volume/mount"
	"keelson.dev/keelson/volume/mount/mounttest"
)

func TestMain(m *testing.M) { mounttest.Main(m) }

const driverName = "model.csi.test"

// model is a driver behind a real socket that mounts really, refuses or hangs when told to, and remembers its calls.
type model struct {
	spec.UnimplementedIdentityServer
	spec.UnimplementedNodeServer
	socket, data string

	mu     sync.Mutex
	can    []spec.NodeServiceCapability_RPC_Type
	refuse map[string]error
	hang   string // the ID of a volume about which it does not answer
	calls  []string
	usage  []*spec.VolumeUsage
	id     string
	most   int64
}

func (m *model) set(f func()) { m.mu.Lock(); defer m.mu.Unlock(); f() }

func (m *model) count(method string) (n int) {
	m.set(func() {
		for _, c := range m.calls {
			if c == method {
				n++
			}
		}
	})
	return n
}

// serve starts a driver.
func serve(t *testing.T, can ...spec.NodeServiceCapability_RPC_Type) *model {
	t.Helper()
	dir := t.TempDir()
	m := &model{socket: filepath.Join(dir, "s"), data: filepath.Join(dir, "data"), can: can, refuse: map[string]error{}, id: "id-1"}
	if err := os.Mkdir(m.data, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", m.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(m.intercept))
	spec.RegisterIdentityServer(server, m)
	spec.RegisterNodeServer(server, m)
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	return m
}

func (m *model) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	var err error
	hangs := false
	m.set(func() {
		m.calls = append(m.calls, method)
		err = m.refuse[method]
		about, _ := request.(interface{ GetVolumeId() string })
		hangs = about != nil && m.hang != "" && about.GetVolumeId() == m.hang
	})
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return next(ctx, request)
}

func (m *model) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (out *spec.NodeGetInfoResponse, _ error) {
	m.set(func() {
		out = &spec.NodeGetInfoResponse{NodeId: m.id, MaxVolumesPerNode: m.most, AccessibleTopology: &spec.Topology{Segments: map[string]string{"rack": "one"}}}
	})
	return out, nil
}

func (m *model) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	out := &spec.NodeGetCapabilitiesResponse{}
	for _, c := range m.can {
		out.Capabilities = append(out.Capabilities, &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: c}}})
	}
	return out, nil
}

func bind(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if there, err := mount.Is(target); there || err != nil {
		return err
	}
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}

func (m *model) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	return &spec.NodeStageVolumeResponse{}, bind(m.data, r.StagingTargetPath)
}

func (m *model) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	return &spec.NodeUnstageVolumeResponse{}, mount.Unmount(r.StagingTargetPath)
}

func (m *model) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	return &spec.NodePublishVolumeResponse{}, bind(m.data, r.TargetPath)
}

func (m *model) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	return &spec.NodeUnpublishVolumeResponse{}, mount.Unmount(r.TargetPath)
}

func (m *model) NodeGetVolumeStats(context.Context, *spec.NodeGetVolumeStatsRequest) (out *spec.NodeGetVolumeStatsResponse, _ error) {
	m.set(func() { out = &spec.NodeGetVolumeStatsResponse{Usage: m.usage} })
	return out, nil
}

// plugin is a node's, with an API that has the driver's object.
func plugin(t *testing.T) (*Plugin, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "n"}},
		&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driverName}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}})
	return New(Config{Root: t.TempDir(), Node: "node-1"}, Deps{Client: client}), client
}

// register makes a driver known.
func register(t *testing.T, p *Plugin, m *model) {
	t.Helper()
	if err := p.Register(t.Context(), driverName, m.socket, []string{"1.0.0"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Deregister(driverName, m.socket) })
}

// request is a pod's volume.
func request(t *testing.T, p *Plugin, pod, handle string) volume.Request {
	t.Helper()
	r := volume.Request{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: pod, UID: types.UID(pod)}}, Volume: &corev1.Volume{Name: "v"},
		Dir: filepath.Join(p.cfg.Root, "pods", pod, "volumes", Name, handle),
		Persistent: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: handle}, Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: handle}}}}}
	if err := os.MkdirAll(filepath.Dir(r.Dir), 0o750); err != nil {
		t.Fatal(err)
	}
	return r
}
