package workloads

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestSilentNode: a node that is not heard of is not ready, and tainted; of its pods those go that do not tolerate that. It comes back
// once it is heard of. With the node go its pods, which nobody else would end.
func TestSilentNode(t *testing.T) {
	s := beginSerial(t) // a second node: other specs count them
	nodes, name := s.client.CoreV1().Nodes(), "silent-"+s.ns
	node, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	s.must(err)
	t.Cleanup(func() { _ = nodes.Delete(context.Background(), name, metav1.DeleteOptions{}) })
	state := func(status corev1.ConditionStatus, taints string) {
		t.Helper()
		s.eventually(fmt.Sprint("Ready is ", status, ", taints are ", taints), func() string {
			node, err = nodes.Get(t.Context(), name, metav1.GetOptions{})
			s.must(err)
			var got []string
			for _, taint := range node.Spec.Taints {
				got = append(got, taint.Key+":"+string(taint.Effect))
			}
			slices.Sort(got)
			i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
			if i < 0 || node.Status.Conditions[i].Status != status || strings.Join(got, " ") != taints {
				return fmt.Sprintf("%+v %v", node.Status.Conditions, got)
			}
			return ""
		})
	}
	for pod, seconds := range map[string]*int64{"leaves": ptr(int64(0)), "stays": nil} {
		p := program(pod, "pause")
		p.Spec.NodeName = name
		p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds},
			{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}}
		p.Spec.TerminationGracePeriodSeconds = ptr(int64(600)) // nobody there ends it
		s.create(p)
	}
	state(corev1.ConditionUnknown, "node.kubernetes.io/unreachable:NoExecute node.kubernetes.io/unreachable:NoSchedule")
	p := s.until("leaves", "is evicted", func(p *corev1.Pod) bool {
		return p.DeletionTimestamp != nil && condition(p, corev1.DisruptionTarget) != nil
	})
	s.equal("why", condition(p, corev1.DisruptionTarget).Reason, "DeletionByTaintManager")
	if p := s.pod("stays"); p.DeletionTimestamp != nil {
		t.Errorf("the pod that tolerates it goes too: %+v", p.Status)
	}

	now := metav1.NowMicro()
	_, err = s.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: node.UID}}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: ptr(int32(40)), RenewTime: &now}}, metav1.CreateOptions{})
	s.must(err)
	_, err = nodes.Patch(t.Context(), name, types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"},{"type":"MemoryPressure","status":"False"},{"type":"DiskPressure","status":"False"},{"type":"PIDPressure","status":"False"}]}}`), metav1.PatchOptions{}, "status")
	s.must(err)
	state(corev1.ConditionTrue, "")
	s.must(nodes.Delete(t.Context(), name, metav1.DeleteOptions{}))
	s.eventually("its pods go", func() string {
		if n := len(s.pods("")); n != 0 {
			return fmt.Sprint(n, " are left")
		}
		return ""
	})
}
