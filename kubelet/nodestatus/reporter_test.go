package nodestatus

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/kubelettest"
)

func reporter(t *testing.T, client *fake.Clientset) *Reporter {
	t.Helper()
	_, conn := kubelettest.New(t)
	return New(Config{
		Name: "n", Hostname: "n", Version: "v1", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, MaxPods: 5, Root: t.TempDir(),
		Labels: map[string]string{"node-role.kubernetes.io/control-plane": "", "color": "blue"}, ServerAddr: "0.0.0.0:10250",
		StatusEvery: time.Minute, LeaseEvery: time.Second,
	}, Deps{Client: client, CRI: criclient.New(conn), Log: slog.New(slog.DiscardHandler),
		Node: func() (*corev1.Node, error) { return nil, errors.New("no watch in this test") }})
}

// run runs a reporter until ready and then f, and waits for its end.
func run(t *testing.T, r *Reporter, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.Run(ctx, func() { close(ready) }) }() // ends with cancel
	select {
	case <-ready:
		f()
	case <-time.After(20 * time.Second):
		t.Error("the node was not reported Ready within 20 s")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// An API that keeps role labels to itself does not keep the node out.
func TestRegisterWithoutRoles(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("create", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
		n := a.(clienttesting.CreateAction).GetObject().(*corev1.Node)
		if _, has := n.Labels["node-role.kubernetes.io/control-plane"]; has {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, n.Name, errors.New("role labels"))
		}
		return false, nil, nil
	})
	run(t, reporter(t, client), func() {
		n, err := client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n.Labels["color"] != "blue" || n.Labels[corev1.LabelHostname] != "n" {
			t.Errorf("labels = %v", n.Labels)
		}
		if n.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 || n.Status.NodeInfo.ContainerRuntimeVersion != "keelson://0.0.1" {
			t.Errorf("status = %+v", n.Status)
		}
		if f := n.Status.DeclaredFeatures; !slices.IsSorted(f) || !slices.Contains(f, "RestartAllContainersOnContainerExits") {
			t.Errorf("declared features = %v", f)
		}
		if p := n.Status.Capacity[corev1.ResourcePods]; p.Value() != 5 {
			t.Errorf("capacity = %v", n.Status.Capacity)
		}
	})
}

// A node object that is deleted while the node lives comes back (HOSTILE ND19).
func TestHostile_ND19(t *testing.T) {
	client := fake.NewClientset()
	r := reporter(t, client)
	run(t, r, func() {
		if err := client.CoreV1().Nodes().Delete(t.Context(), "n", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.SetPressure(Pressure{Memory: "short"}) // something to report
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			n, err := client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
			if err == nil && IsReady(n) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the node did not come back within 20 s: %v", err)
			}
		}
	})
}

// What others change of the node while its status is reported stays: a whole object would put back the taints that it
// was read with, which the API forbids a node, and so the report was lost.
func TestReportLeavesTheRestAlone(t *testing.T) {
	client := fake.NewClientset()
	var taints atomic.Bool
	client.PrependReactor("update", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
		n := a.(clienttesting.UpdateAction).GetObject().(*corev1.Node)
		if a.GetSubresource() == "" || taints.Load() == (len(n.Spec.Taints) > 0) {
			return false, nil, nil
		}
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, n.Name, errors.New("not allowed to modify taints"))
	})
	r := reporter(t, client)
	run(t, r, func() {
		n, err := client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n.Spec.Taints = []corev1.Taint{{Key: "example.com/kept", Effect: corev1.TaintEffectNoSchedule}}
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse})
		n.Status.VolumesAttached = []corev1.AttachedVolume{{Name: "disk"}}
		if _, err := client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		taints.Store(true)
		r.SetPressure(Pressure{Memory: "short"})
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if n, err = client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{}); err != nil {
				t.Fatal(err)
			}
			states := map[corev1.NodeConditionType]corev1.ConditionStatus{}
			for _, c := range n.Status.Conditions {
				states[c.Type] = c.Status
			}
			if states[corev1.NodeMemoryPressure] == corev1.ConditionTrue {
				if len(n.Spec.Taints) != 1 || states[corev1.NodeNetworkUnavailable] != corev1.ConditionFalse || len(n.Status.VolumesAttached) != 1 {
					t.Errorf("taints %v, conditions %v, attached %v", n.Spec.Taints, states, n.Status.VolumesAttached)
				}
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the pressure is not reported within 20 s: %+v", n.Status.Conditions)
			}
		}
	})
}

// Addresses are replaced as a whole, also when there are two of a type; without a difference nothing is said of them.
func TestStatusPatch(t *testing.T) {
	address := func(ips ...string) corev1.NodeStatus {
		s := corev1.NodeStatus{Capacity: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("5")}}
		for _, ip := range ips {
			s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
		}
		return s
	}
	have := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u"}, Status: address("192.0.2.1", "2001:db8::1")}
	for _, want := range []corev1.NodeStatus{address("192.0.2.1", "2001:db8::1"), address("192.0.2.1", "2001:db8::2"), address("2001:db8::1"), {}} {
		patch, err := statusPatch(have, &corev1.Node{Status: want})
		if err != nil {
			t.Fatal(err)
		}
		before, err := json.Marshal(have)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Node{})
		if err != nil {
			t.Fatalf("%s: %v", patch, err)
		}
		var got corev1.Node
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(got.Status, want) || got.UID != "u" {
			t.Errorf("%s makes %+v, want %+v", patch, got.Status, want)
		}
	}
}

func TestConditions(t *testing.T) {
	s := corev1.NodeStatus{}
	now := time.Now()
	conditions(&s, snapshot{trouble: "container runtime is down: gone", pressure: Pressure{Disk: "full"}, now: now})
	want := map[corev1.NodeConditionType]corev1.ConditionStatus{
		corev1.NodeReady: "False", corev1.NodeDiskPressure: "True", corev1.NodeMemoryPressure: "False", corev1.NodePIDPressure: "False",
	}
	for _, c := range s.Conditions {
		if c.Status != want[c.Type] {
			t.Errorf("%s = %s (%s), want %s", c.Type, c.Status, c.Reason, want[c.Type])
		}
	}
	since := s.Conditions[0].LastTransitionTime
	conditions(&s, snapshot{trouble: "still", pressure: Pressure{Disk: "full"}, now: now.Add(time.Hour)})
	if got := s.Conditions[0].LastTransitionTime; !got.Equal(&since) {
		t.Errorf("transition time moved without a transition")
	}
}

// Extended resources that somebody patched into the node's status stay; those that device plugins bring follow the
// plugins, and stay as none when they are gone.
func TestExtendedResources(t *testing.T) {
	r := reporter(t, fake.NewClientset())
	have := corev1.ResourceList{"example.com/toy": resource.MustParse("3")}
	r.deps.Devices = func() (_, _ corev1.ResourceList) {
		return have, corev1.ResourceList{"example.com/toy": resource.MustParse("2")}
	}
	s := corev1.NodeStatus{Capacity: corev1.ResourceList{"example.com/dongle": resource.MustParse("4"), "kubernetes.io/odd": resource.MustParse("1")}}
	check := func(want map[corev1.ResourceName][2]int64) {
		t.Helper()
		r.capacity(&s, snapshot{})
		for name, w := range want {
			c, listed := s.Capacity[name]
			a := s.Allocatable[name]
			if !listed || c.Value() != w[0] || a.Value() != w[1] {
				t.Errorf("%s: %s, of them %s allocatable, want %v", name, c.String(), a.String(), w)
			}
		}
		if _, kept := s.Capacity["kubernetes.io/odd"]; kept {
			t.Error("a resource that is nobody's stays")
		}
	}
	check(map[corev1.ResourceName][2]int64{"example.com/dongle": {4, 4}, "example.com/toy": {3, 2}, corev1.ResourcePods: {5, 5}})
	have = nil
	check(map[corev1.ResourceName][2]int64{"example.com/dongle": {4, 4}, "example.com/toy": {0, 0}})
}
