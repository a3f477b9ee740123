package csi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/volume"
	"keelson.dev/keelson/volume/mount"
	"keelson.dev/keelson/volume/mount/mounttest"
)

const (
	stages = spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME
	counts = spec.NodeServiceCapability_RPC_GET_VOLUME_STATS
)

// entry is what CSINode says of the driver; nil for nothing.
func entry(t *testing.T, client kubernetes.Interface) *storagev1.CSINodeDriver {
	t.Helper()
	n, err := client.StorageV1().CSINodes().Get(t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n.Spec.Drivers {
		if n.Spec.Drivers[i].Name == driverName {
			return &n.Spec.Drivers[i]
		}
	}
	return nil
}

// TestRegister: a driver is known to the API from its registration to its end; of two instances the older one's end does not touch the newer.
func TestRegister(t *testing.T) {
	p, client := plugin(t)
	old, next := serve(t), serve(t)
	next.id, next.most = "id-2", 7
	var heard []string
	p.Watch(func(d string) { heard = append(heard, d) })
	register(t, p, old)
	if e := entry(t, client); e == nil || e.NodeID != "id-1" || len(e.TopologyKeys) != 1 || e.Allocatable != nil {
		t.Errorf("CSINode says %+v", e)
	}
	if n, err := client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{}); err != nil || n.Labels["rack"] != "one" {
		t.Errorf("the node's labels: %v %v", n.Labels, err)
	}
	register(t, p, next)
	p.Deregister(driverName, old.socket)
	if e := entry(t, client); e == nil || e.NodeID != "id-2" || *e.Allocatable.Count != 7 {
		t.Errorf("CSINode says %+v", e)
	}
	p.Deregister(driverName, next.socket)
	p.Deregister(driverName, next.socket) // twice is once
	if e := entry(t, client); e != nil || p.Driver(driverName) != nil {
		t.Errorf("after its end CSINode says %+v", e)
	}
	if len(heard) != 3 {
		t.Errorf("watchers heard %v", heard)
	}
}

// TestRegister_Refused: what is no driver, or says nothing of itself, is not made known.
func TestRegister_Refused(t *testing.T) {
	p, _ := plugin(t)
	m := serve(t)
	for _, c := range []struct{ name, version, want string }{
		{"../up", "1.0.0", "no name for a CSI driver"}, {strings.Repeat("a", 64), "1.0.0", "no name for a CSI driver"}, {driverName, "0.3.0", "this node version 1"},
	} {
		if err := p.Register(t.Context(), c.name, m.socket, []string{c.version}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v", c.name, c.version, err)
		}
	}
	m.id = ""
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it is not asked again
	if err := p.Register(ctx, driverName, m.socket, []string{"1.0.0"}); err == nil || p.Driver(driverName) != nil {
		t.Errorf("a driver without a node ID: %v", err)
	}
}

// TestMount: staged once, published to each pod, refused steps are told and done again, and the last pod's end undoes all of it.
func TestMount(t *testing.T) {
	mounttest.Need(t)
	p, _ := plugin(t)
	one, two := request(t, p, "one", "disk"), request(t, p, "two", "disk")
	if _, err := p.Mount(t.Context(), one); err == nil || !strings.Contains(err.Error(), driverName+" not found in the list of registered CSI drivers") {
		t.Fatalf("without the driver: %v", err)
	}
	m := serve(t, stages)
	register(t, p, m)
	m.refuse["NodePublishVolume"] = status.Error(codes.Internal, "told to refuse")
	if _, err := p.Mount(t.Context(), one); err == nil || err.Error() != "NodePublishVolume: rpc error: code = Internal desc = told to refuse" {
		t.Fatalf("refused: %v", err)
	}
	m.set(func() { m.refuse = map[string]error{} })
	at, err := p.Mount(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	staged, publishedTimes := m.count("NodeStageVolume"), m.count("NodePublishVolume")
	if again, err := p.Mount(t.Context(), one); err != nil || again != at || m.count("NodeStageVolume") != staged || m.count("NodePublishVolume") != publishedTimes {
		t.Errorf("of a volume that is ready the driver was asked: %v %v", again, err)
	}
	if _, err := p.Mount(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	// A later process finds both in use and goes on.
	p = New(p.cfg, p.deps)
	if err := p.Unmount(t.Context(), "one", "disk", one.Dir); err == nil {
		t.Error("taken down without the driver")
	}
	register(t, p, m)
	if err := p.Unmount(t.Context(), "one", "disk", one.Dir); err != nil || m.count("NodeUnstageVolume") != 0 {
		t.Errorf("the first pod's end: %v, unstaged %d times", err, m.count("NodeUnstageVolume"))
	}
	m.set(func() { m.refuse["NodeUnstageVolume"] = errors.New("busy") })
	if err := p.Unmount(t.Context(), "two", "disk", two.Dir); err == nil || !strings.Contains(err.Error(), `UnmountVolume.TearDown failed for volume "disk"`) {
		t.Errorf("refused: %v", err)
	}
	if _, err := readRecord(two.Dir); err != nil {
		t.Errorf("the record went before the volume: %v", err)
	}
	m.set(func() { m.refuse = map[string]error{} })
	for range 2 { // twice is once
		if err := p.Unmount(t.Context(), "two", "disk", two.Dir); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(p.base(), driverName)); len(left) != 0 {
		t.Errorf("left in the staging folder: %v", left)
	}
	if there, err := mount.Is(at.HostPath); there || err != nil {
		t.Errorf("still mounted: %t %v", there, err)
	}
}

// TestMount_WithoutStage: a driver that does not stage is not asked to.
func TestMount_WithoutStage(t *testing.T) {
	mounttest.Need(t)
	p, _ := plugin(t)
	m := serve(t)
	register(t, p, m)
	r := request(t, p, "one", "disk")
	if _, err := p.Mount(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := p.Unmount(t.Context(), "one", "disk", r.Dir); err != nil {
		t.Fatal(err)
	}
	if m.count("NodeStageVolume")+m.count("NodeUnstageVolume") != 0 || m.count("NodeUnpublishVolume") != 1 {
		t.Errorf("the driver was asked %v", m.calls)
	}
}

// TestMount_Hangs: a volume about which the driver does not answer holds up its own pods alone, and ends with its caller's patience.
func TestMount_Hangs(t *testing.T) {
	mounttest.Need(t)
	p, _ := plugin(t)
	m := serve(t)
	m.hang = "stuck"
	register(t, p, m)
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan error, 2)
	for _, pod := range []string{"one", "two"} {
		r := request(t, p, pod, "stuck")
		go func() { // ends with ctx
			_, err := p.Mount(ctx, r)
			stuck <- err
		}()
	}
	for deadline := time.Now().Add(time.Minute); m.count("NodePublishVolume") == 0; time.Sleep(time.Millisecond) { // between looks
		if time.Now().After(deadline) {
			t.Fatal("the driver is never asked")
		}
	}
	beside := request(t, p, "three", "fine")
	if _, err := p.Mount(t.Context(), beside); err != nil {
		t.Errorf("the volume beside it: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-stuck; err == nil {
			t.Error("mounted without the driver's answer")
		}
	}
	if err := p.Unmount(t.Context(), "three", "fine", beside.Dir); err != nil {
		t.Error(err)
	}
}

// TestMeasure: a driver that counts is asked; figures that cannot be are an error; one that does not count is not asked.
func TestMeasure(t *testing.T) {
	p, _ := plugin(t)
	counting, dumb := serve(t, counts, stages), serve(t)
	counting.usage = []*spec.VolumeUsage{{Unit: spec.VolumeUsage_BYTES, Total: 10, Used: 3, Available: 6}, {Unit: spec.VolumeUsage_INODES, Total: 5, Used: 1, Available: 4}}
	register(t, p, counting)
	r := request(t, p, "one", "disk")
	u, err := p.Measure(t.Context(), r, volume.Mounted{HostPath: "/x"})
	if err != nil || *u.Capacity != 10 || *u.Used != 3 || *u.Available != 6 || *u.Inodes != 5 || *u.InodesUsed != 1 || *u.InodesFree != 4 {
		t.Errorf("measured %+v %v", u, err)
	}
	for _, bad := range [][]*spec.VolumeUsage{nil, {{Unit: spec.VolumeUsage_BYTES, Used: -1}}, {{Unit: spec.VolumeUsage_UNKNOWN}}} {
		counting.set(func() { counting.usage = bad })
		if u, err := p.Measure(t.Context(), r, volume.Mounted{HostPath: "/x"}); err == nil {
			t.Errorf("of %v it made %+v", bad, u)
		}
	}
	register(t, p, dumb)
	if _, err := p.Measure(t.Context(), r, volume.Mounted{HostPath: "/x"}); !errors.Is(err, volume.ErrUnmeasured) || dumb.count("NodeGetVolumeStats") != 0 {
		t.Errorf("a driver that does not count: %v", err)
	}
}
