package podgc

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/controlplane/controller"
)

func node(name string, ready corev1.ConditionStatus, taints ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	for _, key := range taints {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute})
	}
	return n
}

func pod(name, node string, phase corev1.PodPhase, going bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "u"}, Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}
	if going {
		p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	}
	return p
}

// sweeping returns a sweeper that knows the objects, and its API, which has them too.
func sweeping(t *testing.T, nodes []*corev1.Node, pods ...*corev1.Pod) (*sweeper, *fake.Clientset) {
	t.Helper()
	api := fake.NewClientset()
	all := informers.NewSharedInformerFactory(api, 0)
	s := &sweeper{Deps: controller.Deps{Client: api, Log: slog.New(slog.DiscardHandler)}, missing: map[string]time.Time{},
		pods: all.Core().V1().Pods().Informer(), nodes: all.Core().V1().Nodes().Informer()}
	for _, n := range nodes {
		if err := s.nodes.GetIndexer().Add(n); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pods {
		if err := api.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
		if err := s.pods.GetIndexer().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	return s, api
}

// fate of a pod: "stays", "goes", or "goes: why" if it was marked as failed before.
func fate(t *testing.T, api *fake.Clientset, name string) string {
	t.Helper()
	_, err := api.CoreV1().Pods("ns").Get(t.Context(), name, metav1.GetOptions{})
	if err == nil {
		return "stays"
	}
	if !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	out := "goes"
	for _, a := range api.Actions() {
		patch, ok := a.(clienttesting.PatchAction)
		if !ok || patch.GetName() != name || patch.GetSubresource() != "status" {
			continue
		}
		for _, why := range []string{"PodGC: node no longer exists", "PodGC: node is out of service"} {
			if text := string(patch.GetPatch()); strings.Contains(text, why) && strings.Contains(text, `"phase":"Failed"`) && strings.Contains(text, "DeletionByPodGC") {
				out += ": " + why
			}
		}
	}
	return out
}

func TestSweep(t *testing.T) {
	const out = corev1.TaintNodeOutOfService
	for _, c := range []struct {
		what string
		node *corev1.Node
		pod  *corev1.Pod
		want string
	}{
		{"runs", node("n", "True"), pod("p", "n", corev1.PodRunning, false), "stays"},
		{"being deleted on a node that answers", node("n", "True"), pod("p", "n", corev1.PodRunning, true), "stays"},
		{"being deleted on a node that is silent", node("n", "Unknown"), pod("p", "n", corev1.PodRunning, true), "stays"},
		{"being deleted on a node out of service", node("n", "Unknown", out), pod("p", "n", corev1.PodRunning, true), "goes: PodGC: node is out of service"},
		{"ended, being deleted on a node out of service", node("n", "Unknown", out), pod("p", "n", corev1.PodSucceeded, true), "goes"},
		{"not being deleted on a node out of service", node("n", "Unknown", out), pod("p", "n", corev1.PodRunning, false), "stays"},
		{"being deleted on a node that is said to be out of service, and answers", node("n", "True", out), pod("p", "n", corev1.PodRunning, true), "stays"},
		{"being deleted, never had a node", nil, pod("p", "", corev1.PodPending, true), "goes"},
		{"waits for a node", nil, pod("p", "", corev1.PodPending, false), "stays"},
	} {
		var nodes []*corev1.Node
		if c.node != nil {
			nodes = append(nodes, c.node)
		}
		s, api := sweeping(t, nodes, c.pod)
		if _, err := s.reconcile(t.Context(), all); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if got := fate(t, api, "p"); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// A node may come again: its pods go only when it has been missing for a while.
func TestSweepMissingNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, api := sweeping(t, nil, pod("p", "n", corev1.PodRunning, false))
		again, err := s.reconcile(t.Context(), all)
		if got := fate(t, api, "p"); err != nil || again <= 0 || got != "stays" {
			t.Fatalf("at first: %s, again after %s, %v", got, again, err)
		}
		time.Sleep(again)
		if _, err := s.reconcile(t.Context(), all); err != nil {
			t.Error(err)
		}
		if got := fate(t, api, "p"); got != "goes: PodGC: node no longer exists" {
			t.Errorf("after %s: %s", again, got)
		}
	})
}

// Of ended pods the oldest go beyond the limit.
func TestSweepEnded(t *testing.T) {
	pods := make([]*corev1.Pod, endedLimit+2)
	for i := range pods {
		pods[i] = pod(fmt.Sprint("p", i), "n", corev1.PodSucceeded, false)
		pods[i].CreationTimestamp = metav1.NewTime(time.Unix(int64(len(pods)-i), 0))
	}
	s, api := sweeping(t, []*corev1.Node{node("n", "True")}, pods...)
	if _, err := s.reconcile(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	var gone []string
	for _, a := range api.Actions() {
		if d, ok := a.(clienttesting.DeleteAction); ok {
			gone = append(gone, d.GetName())
		}
	}
	if got, want := fmt.Sprint(gone), fmt.Sprintf("[p%d p%d]", endedLimit+1, endedLimit); got != want {
		t.Errorf("gone: %s, want %s", got, want)
	}
}
