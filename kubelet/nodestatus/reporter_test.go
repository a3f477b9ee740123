package nodestatus

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
