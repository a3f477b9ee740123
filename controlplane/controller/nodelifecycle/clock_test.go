package nodelifecycle

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestHostile_RA10: a node's clock, or ours, jumps by a year or a day, before or back. A Lease is compared with what it said before, and its
// silence is measured by our own monotonic clock: nobody expires by what a Lease says. (Leases within etcd go by the monotonic clock too.)
func TestHostile_RA10(t *testing.T) {
	w := &watcher{seen: map[string]sight{}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	for _, jump := range []time.Duration{0, 365 * 24 * time.Hour, -24 * time.Hour, -100 * 365 * 24 * time.Hour} {
		renewed := metav1.NewMicroTime(time.Now().Add(jump))
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: coordinationv1.LeaseSpec{RenewTime: &renewed}}
		w.seen["n"] = sight{renewed: w.seen["n"].renewed, at: time.Now().Add(-grace / 2)}
		w.sighted(lease)
		if left := w.lease(node); left <= grace/2 || left > grace {
			t.Errorf("clock off by %v: %v left of %v after a renewal", jump, left, grace)
		}
		// The same Lease again is no renewal, whatever time it names.
		w.seen["n"] = sight{renewed: renewed.Time, at: time.Now().Add(-2 * grace)}
		w.sighted(lease)
		if left := w.lease(node); left > 0 {
			t.Errorf("clock off by %v: a silent node has %v left", jump, left)
		}
	}
}
