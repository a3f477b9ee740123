package csi

import (
	"context"
	"log/slog"
	"net"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

const driverName = "model.csi.test"

// model is a driver behind a real socket: it does what the specification asks, refuses what it is told to, and remembers its calls. It is also
// the node's list of drivers.
type model struct {
	spec.UnimplementedControllerServer
	conn *grpc.ClientConn

	mu       sync.Mutex
	can      []spec.ControllerServiceCapability_RPC_Type
	refuse   map[string]error
	calls    []string
	room     map[string]int64 // by the topology's node, "" for everywhere
	most     int64            // the largest volume, 0 for none
	volumes  map[string]int64 // bytes by ID
	attached map[string]string
	watchers []func(string)
	gone     bool
	grown    []string
	made     *spec.CreateVolumeRequest // the last one
	alone    bool                      // the node has nothing to do when a volume grows
}

func (m *model) lock() func() { m.mu.Lock(); return m.mu.Unlock }

// start serves a driver that can do everything.
func start(t *testing.T) *model {
	t.Helper()
	m := &model{refuse: map[string]error{}, room: map[string]int64{}, volumes: map[string]int64{}, attached: map[string]string{},
		can: []spec.ControllerServiceCapability_RPC_Type{spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
			spec.ControllerServiceCapability_RPC_EXPAND_VOLUME, spec.ControllerServiceCapability_RPC_GET_CAPACITY}}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(m.intercept))
	spec.RegisterControllerServer(server, m)
	go func() { _ = server.Serve(l) }() // ends with Stop
	if m.conn, err = grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close(); server.Stop() })
	return m
}

func (m *model) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	unlock := m.lock()
	m.calls = append(m.calls, method)
	err := m.refuse[method]
	unlock()
	if err != nil {
		return nil, err
	}
	return next(ctx, request)
}

func (m *model) count(method string) (n int) {
	defer m.lock()()
	for _, c := range m.calls {
		if c == method {
			n++
		}
	}
	return n
}

// Controller implements Drivers.
func (m *model) Controller(driver string) grpc.ClientConnInterface {
	defer m.lock()()
	if driver != driverName || m.gone {
		return nil
	}
	return m.conn
}

// Watch implements Drivers.
func (m *model) Watch(f func(string)) {
	defer m.lock()()
	m.watchers = append(m.watchers, f)
}

// Grown implements Drivers.
func (m *model) Grown(volume string) {
	defer m.lock()()
	m.grown = append(m.grown, volume)
}

// comes has the node tell that the driver is there, or is not.
func (m *model) comes(there bool) {
	unlock := m.lock()
	m.gone = !there
	watchers := slices.Clone(m.watchers)
	unlock()
	for _, f := range watchers {
		f(driverName)
	}
}

func (m *model) set(f func()) { defer m.lock()(); f() }

func (m *model) ControllerGetCapabilities(context.Context, *spec.ControllerGetCapabilitiesRequest) (*spec.ControllerGetCapabilitiesResponse, error) {
	defer m.lock()()
	out := &spec.ControllerGetCapabilitiesResponse{}
	for _, c := range m.can {
		out.Capabilities = append(out.Capabilities, &spec.ControllerServiceCapability{Type: &spec.ControllerServiceCapability_Rpc{Rpc: &spec.ControllerServiceCapability_RPC{Type: c}}})
	}
	return out, nil
}

func (m *model) GetCapacity(_ context.Context, r *spec.GetCapacityRequest) (*spec.GetCapacityResponse, error) {
	defer m.lock()()
	out := &spec.GetCapacityResponse{AvailableCapacity: m.room[r.GetAccessibleTopology().GetSegments()["node"]]}
	if m.most > 0 {
		out.MaximumVolumeSize = wrapped(m.most)
	}
	return out, nil
}

func (m *model) CreateVolume(_ context.Context, r *spec.CreateVolumeRequest) (*spec.CreateVolumeResponse, error) {
	defer m.lock()()
	m.volumes[r.Name], m.made = r.GetCapacityRange().GetRequiredBytes(), r
	return &spec.CreateVolumeResponse{Volume: &spec.Volume{VolumeId: r.Name, CapacityBytes: m.volumes[r.Name]}}, nil
}

func (m *model) DeleteVolume(_ context.Context, r *spec.DeleteVolumeRequest) (*spec.DeleteVolumeResponse, error) {
	defer m.lock()()
	delete(m.volumes, r.VolumeId)
	return &spec.DeleteVolumeResponse{}, nil
}

func (m *model) ControllerPublishVolume(_ context.Context, r *spec.ControllerPublishVolumeRequest) (*spec.ControllerPublishVolumeResponse, error) {
	defer m.lock()()
	m.attached[r.VolumeId] = r.NodeId
	return &spec.ControllerPublishVolumeResponse{PublishContext: map[string]string{"on": r.NodeId}}, nil
}

func (m *model) ControllerUnpublishVolume(_ context.Context, r *spec.ControllerUnpublishVolumeRequest) (*spec.ControllerUnpublishVolumeResponse, error) {
	defer m.lock()()
	delete(m.attached, r.VolumeId)
	return &spec.ControllerUnpublishVolumeResponse{}, nil
}

func (m *model) ControllerExpandVolume(_ context.Context, r *spec.ControllerExpandVolumeRequest) (*spec.ControllerExpandVolumeResponse, error) {
	defer m.lock()()
	m.volumes[r.VolumeId] = r.GetCapacityRange().GetRequiredBytes()
	return &spec.ControllerExpandVolumeResponse{CapacityBytes: m.volumes[r.VolumeId], NodeExpansionRequired: !m.alone}, nil
}

// run runs a controller with the driver and an API that holds these objects.
func run(t *testing.T, m *model, controllers []func(controller.Deps, Drivers) (*controller.Loop, error), objects ...runtime.Object) (*fake.Clientset, *record.FakeRecorder) {
	t.Helper()
	client, events := fake.NewClientset(objects...), record.NewFakeRecorder(1000)
	factory := informers.NewSharedInformerFactory(client, 0)
	var loops []*controller.Loop
	for _, f := range controllers {
		loop, err := f(controller.Deps{Client: client, Informers: factory, Events: events, Log: slog.New(slog.DiscardHandler)}, m)
		if err != nil {
			t.Fatal(err)
		}
		loops = append(loops, loop)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for _, loop := range loops {
		wg.Go(func() { _ = loop.Run(ctx) }) // ends with ctx
	}
	t.Cleanup(func() { stop(); wg.Wait(); factory.Shutdown() })
	return client, events
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) { // between looks
		if time.Now().After(deadline) {
			t.Fatal(what, ": never")
		}
	}
}

// on is a node on which the driver is registered.
func on(name string, keys ...string) []runtime.Object {
	return []runtime.Object{
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"node": name}}},
		&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: driverName, NodeID: "id-" + name, TopologyKeys: keys}}}},
	}
}

func driverObject(tells bool) *storagev1.CSIDriver {
	return &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driverName, UID: "driver"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &tells, AttachRequired: ptr.To(true)}}
}

func class(name string, waits bool) *storagev1.StorageClass {
	mode := storagev1.VolumeBindingImmediate
	if waits {
		mode = storagev1.VolumeBindingWaitForFirstConsumer
	}
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: driverName, VolumeBindingMode: &mode}
}
