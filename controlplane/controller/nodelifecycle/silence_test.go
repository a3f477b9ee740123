package nodelifecycle

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/controlplane/controller"
)

// TestHostile_NW11: no node is heard of any more. Then it is us who are cut off, and no pod is evicted; once one node is heard of, those
// that stay silent lose theirs.
func TestHostile_NW11(t *testing.T) {
	stays := int64(300) // as admission gives every pod
	tolerations := []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &stays}}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		api := fake.NewClientset()
		shared := informers.NewSharedInformerFactory(api, 0)
		loop, err := New(controller.Deps{Client: api, Informers: shared, Events: record.NewFakeRecorder(1000), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		renew := func(name string) {
			now := metav1.NowMicro()
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: &now}}
			leases := api.CoordinationV1().Leases(lease.Namespace)
			if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
				if _, err := leases.Create(ctx, lease, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		ready := func(name string) {
			n, err := api.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
			if _, err := api.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"a", "b", "c"} {
			n := node("Ready=True")
			n.Name = name
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "on-" + name}, Spec: corev1.PodSpec{NodeName: name, Tolerations: tolerations}}
			if _, err := api.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := api.CoreV1().Pods("ns").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			renew(name)
		}
		pods := func() string {
			list, err := api.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range list.Items {
				names = append(names, p.Name)
			}
			slices.Sort(names)
			return strings.Join(names, " ")
		}
		shared.Start(ctx.Done())
		done := make(chan error)
		go func() { done <- loop.Run(ctx) }()
		time.Sleep(time.Hour)
		if got := pods(); got != "on-a on-b on-c" {
			t.Errorf("nobody was heard of for an hour, and these are left: %s", got)
		}
		// The others' pods get their whole time again: b is heard of a little later.
		for i := range 60 {
			renew("a")
			ready("a")
			if i > 10 {
				renew("b")
				ready("b")
			}
			time.Sleep(10 * time.Second)
			if got := pods(); i < 28 && got != "on-a on-b on-c" {
				t.Fatalf("a is heard of again for %d s: left %s", 10*i, got)
			}
		}
		if got := pods(); got != "on-a on-b" {
			t.Errorf("a and b are heard of again, c is not: left %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		shared.Shutdown()
	})
}
