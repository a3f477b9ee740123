package kubelet_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"keelson.dev/keelson/kubelet"
	"keelson.dev/keelson/kubelet/device/devicetest"
)

const toy = "example.com/toy"

// toys starts a device plugin at the node.
func (n *node) toys(endpoint string, devices ...*api.Device) *devicetest.Plugin {
	n.t.Helper()
	p := &devicetest.Plugin{Dir: filepath.Join(n.cfg.Paths.Root, "device-plugins"), Endpoint: endpoint, Resource: toy,
		Options: &api.DevicePluginOptions{PreStartRequired: true},
		Answer: func(ids []string) *api.ContainerAllocateResponse {
			out := &api.ContainerAllocateResponse{Envs: map[string]string{"TOYS": strings.Join(ids, ","), "OWN": "plugin"},
				Annotations: map[string]string{"example.com/toys": "yes"}, CdiDevices: []*api.CDIDevice{{Name: "example.com/toy=all"}},
				Mounts: []*api.Mount{{ContainerPath: "/toys", HostPath: "/run/toys", ReadOnly: true}}}
			for _, id := range ids {
				out.Devices = append(out.Devices, &api.DeviceSpec{ContainerPath: "/dev/" + id, HostPath: "/dev/null", Permissions: "rw"})
			}
			return out
		}}
	n.t.Cleanup(p.Stop)
	if err := p.Start(n.t.Context(), devices...); err != nil {
		n.t.Fatalf("device plugin: %v", err)
	}
	return p
}

// registers waits until the kubelet takes registrations.
func (n *node) registers() {
	n.t.Helper()
	socket := filepath.Join(n.cfg.Paths.Root, "device-plugins", "kubelet.sock")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return
		} else if time.Now().After(deadline) {
			n.t.Fatalf("the kubelet takes no device plugins: %v", err)
		}
	}
}

// offers waits until the node has so many of the resource, and so many of them for pods.
func (n *node) offers(capacity, allocatable string) {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := n.client.CoreV1().Nodes().Get(n.t.Context(), "node-1", metav1.GetOptions{})
		if err != nil {
			n.t.Fatal(err)
		}
		c, a := got.Status.Capacity[toy], got.Status.Allocatable[toy]
		if _, has := got.Status.Capacity[toy]; (has || capacity == "0") && c.String() == capacity && a.String() == allocatable {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the node offers %s of %s, want %s of %s", a.String(), c.String(), allocatable, capacity)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func wants(name string, count string) *corev1.Pod {
	list := corev1.ResourceList{toy: resource.MustParse(count)}
	return pod(name, corev1.Container{Name: "c", Image: "nginx:1", Env: []corev1.EnvVar{{Name: "OWN", Value: "pod"}},
		Resources: corev1.ResourceRequirements{Limits: list, Requests: list}})
}

// has is what a pod's container has been given, by its environment.
func (n *node) has(pod string) []string {
	for _, e := range n.runtime.Config(pod, "c").GetEnvs() {
		if e.GetKey() == "TOYS" {
			return strings.Split(string(e.GetValue()), ",")
		}
	}
	return nil
}

// A device plugin's resource is in the node's capacity, its devices go to one container each with all that they need, a
// pod that asks for more fails, and devices come back when their pod has ended.
func TestDevices(t *testing.T) {
	n := start(t, nil)
	plugin := n.toys("toy.sock", devicetest.Healthy("t1", "t2", "t3")...)
	n.offers("3", "3")
	n.create(wants("first", "2"))
	n.until("first", "Running", running)
	got := n.has("first")
	if len(got) != 2 {
		t.Fatalf("the container has %v, want two devices", got)
	}
	cfg := n.runtime.Config("first", "c")
	if d := cfg.GetDevices(); len(d) != 2 || d[0].GetContainerPath() != "/dev/"+got[0] || d[0].GetHostPath() != "/dev/null" || d[0].GetPermissions() != "rw" {
		t.Errorf("devices = %v", d)
	}
	mount := false
	for _, m := range cfg.GetMounts() {
		mount = mount || m.GetContainerPath() == "/toys" && m.GetHostPath() == "/run/toys" && m.GetReadonly()
	}
	last := ""
	for _, e := range cfg.GetEnvs() {
		if e.GetKey() == "OWN" {
			last = string(e.GetValue())
		}
	}
	if !mount || last != "pod" || cfg.GetAnnotations()["example.com/toys"] != "yes" || len(cfg.GetCDIDevices()) != 1 {
		t.Errorf("mount %t, OWN=%s, annotations %v, CDI %v", mount, last, cfg.GetAnnotations(), cfg.GetCDIDevices())
	}
	if asked := strings.Join(plugin.Asked(), "; "); asked != "Allocate "+strings.Join(got, ",")+"; PreStart "+strings.Join(got, ",") {
		t.Errorf("the plugin was asked %q", asked)
	}
	n.create(wants("greedy", "2"))
	failed := n.until("greedy", "Failed", phase(corev1.PodFailed))
	if failed.Status.Reason != "OutOf"+toy {
		t.Errorf("reason %s: %s", failed.Status.Reason, failed.Status.Message)
	}
	n.delete("first", 1)
	n.until("first", "gone", isGone)
	n.create(wants("next", "3"))
	n.until("next", "Running", running)
}

// The health of devices is told: in the node's allocatable, in the pod's status; an unhealthy one is given to nobody.
func TestDeviceHealth(t *testing.T) {
	n := start(t, nil)
	plugin := n.toys("toy.sock", devicetest.Healthy("t1", "t2")...)
	n.offers("2", "2")
	n.create(wants("holder", "1"))
	n.until("holder", "Running", running)
	mine := n.has("holder")[0]
	health := func(want corev1.ResourceHealthStatus) {
		t.Helper()
		n.until("holder", "its device "+string(want), func(p *corev1.Pod) bool {
			s := p.Status.ContainerStatuses[0].AllocatedResourcesStatus
			return len(s) == 1 && s[0].Name == toy && len(s[0].Resources) == 1 && string(s[0].Resources[0].ResourceID) == mine && s[0].Resources[0].Health == want
		})
	}
	health(corev1.ResourceHealthStatusHealthy)
	plugin.Set(&api.Device{ID: "t1", Health: api.Unhealthy}, &api.Device{ID: "t2", Health: api.Unhealthy})
	n.offers("2", "0")
	health(corev1.ResourceHealthStatusUnhealthy)
	plugin.Set(devicetest.Healthy("t1", "t2")...)
	n.offers("2", "2")
	health(corev1.ResourceHealthStatusHealthy)
	plugin.Stop()
	n.offers("2", "0")
	health(corev1.ResourceHealthStatusUnhealthy)
	if n.runtime.Running("holder", "c") != 1 {
		t.Error("the pod lost its container with the plugin")
	}
}

// The kubelet dies and comes back: what was given stays given, and what pods had that are gone is free.
func TestDevicesOutliveTheKubelet(t *testing.T) {
	n := start(t, nil)
	plugin := n.toys("toy.sock", devicetest.Healthy("t1", "t2")...)
	n.offers("2", "2")
	n.create(wants("stays", "1"))
	n.create(wants("goes", "1"))
	n.until("stays", "Running", running)
	n.until("goes", "Running", running)
	mine := n.has("stays")[0]
	n.stop()
	if err := n.client.CoreV1().Pods("default").Delete(t.Context(), "goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.run()
	n.registers()
	n.offers("0", "0") // until the plugin comes back, which finds its socket gone
	if _, err := os.Stat(filepath.Join(plugin.Dir, plugin.Endpoint)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the plugin's socket is still there (%v): plugins wait for its end to register again", err)
	}
	plugin.Stop()
	n.toys("toy.sock", devicetest.Healthy("t1", "t2")...)
	n.offers("2", "2")
	n.until("goes", "its container gone", func(*corev1.Pod) bool { return n.runtime.Config("goes", "c") == nil })
	n.create(wants("next", "1"))
	n.until("next", "Running", running)
	if got := n.has("next"); len(got) != 1 || got[0] == mine {
		t.Errorf("the next pod got %v, and %s is another's", got, mine)
	}
}

// Init containers hand their devices on; who measures devices finds out whose they are.
func TestDevicesAreHandedOnAndListed(t *testing.T) {
	n := start(t, nil)
	n.toys("toy.sock", &api.Device{ID: "t1", Health: api.Healthy, Topology: &api.TopologyInfo{Nodes: []*api.NUMANode{{ID: 1}}}})
	n.offers("1", "1")
	p := wants("chain", "1")
	first := *p.Spec.Containers[0].DeepCopy()
	first.Name, first.Image = "first", "exit:0"
	p.Spec.InitContainers = []corev1.Container{first}
	n.create(p)
	n.until("chain", "Running", running)
	conn, err := grpc.NewClient("unix://"+filepath.Join(n.cfg.Paths.Root, "pod-resources", "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := podresources.NewPodResourcesListerClient(conn)
	list, err := client.List(t.Context(), &podresources.ListPodResourcesRequest{}, grpc.WaitForReady(true))
	if err != nil || len(list.GetPodResources()) != 1 || list.GetPodResources()[0].GetName() != "chain" || len(list.GetPodResources()[0].GetContainers()) != 1 {
		t.Fatalf("list: %v, %v", list, err)
	}
	d := list.GetPodResources()[0].GetContainers()[0].GetDevices()
	if len(d) != 1 || d[0].GetResourceName() != toy || !slices.Equal(d[0].GetDeviceIds(), []string{"t1"}) || d[0].GetTopology().GetNodes()[0].GetID() != 1 {
		t.Errorf("devices of the container: %v", d)
	}
	all, err := client.GetAllocatableResources(t.Context(), &podresources.AllocatableResourcesRequest{})
	if err != nil || len(all.GetDevices()) != 1 {
		t.Errorf("allocatable: %v, %v", all, err)
	}
	one, err := client.Get(t.Context(), &podresources.GetPodResourcesRequest{PodName: "chain", PodNamespace: "default"})
	if err != nil || one.GetPodResources().GetName() != "chain" {
		t.Errorf("get: %v, %v", one, err)
	}
	if _, err := client.Get(t.Context(), &podresources.GetPodResourcesRequest{PodName: "none", PodNamespace: "default"}); err == nil {
		t.Error("a pod that is not there was found")
	}
}

// A plugin that asks for what is not its to have is refused, and one that refuses costs its pod, not the node.
func TestDevicePluginsThatErr(t *testing.T) {
	n := start(t, func(*kubelet.Config) {})
	dir := filepath.Join(n.cfg.Paths.Root, "device-plugins")
	for what, p := range map[string]*devicetest.Plugin{
		"a resource of Kubernetes": {Dir: dir, Endpoint: "a.sock", Resource: "kubernetes.io/toy"},
		"no domain":                {Dir: dir, Endpoint: "a.sock", Resource: "cpu"},
		"a socket elsewhere":       {Dir: dir, Endpoint: "../../a.sock", Resource: toy},
	} {
		if err := p.Register(t.Context()); err == nil || !strings.Contains(err.Error(), "InvalidArgument") {
			t.Errorf("%s: %v", what, err)
		}
	}
	plugin := &devicetest.Plugin{Dir: dir, Endpoint: "b.sock", Resource: toy, Refuse: errors.New("out of order")}
	t.Cleanup(plugin.Stop)
	if err := plugin.Start(t.Context(), devicetest.Healthy("t1")...); err != nil {
		t.Fatal(err)
	}
	n.offers("1", "1")
	n.create(wants("unlucky", "1"))
	got := n.until("unlucky", "Failed", phase(corev1.PodFailed))
	if got.Status.Reason != "UnexpectedAdmissionError" || !strings.Contains(got.Status.Message, "out of order") {
		t.Errorf("%s: %s", got.Status.Reason, got.Status.Message)
	}
	n.create(pod("web", corev1.Container{Name: "c", Image: "nginx:1"}))
	n.until("web", "Running", running)
}
