package stats

import (
	"context"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume"
)

// TestClaims: what is behind a claim is told once, however many pods use it; volumes without a claim are not.
func TestClaims(t *testing.T) {
	of := func(n uint64) *uint64 { return &n }
	whole := volume.Usage{Capacity: of(100), Available: of(60), Used: of(40), Inodes: of(10), InodesFree: of(7), InodesUsed: of(3)}
	measured := map[types.UID][]volume.Measurement{
		"1": {{Volume: "v", Claim: "shared", Usage: whole}, {Volume: "scratch", Usage: whole}},
		"2": {{Volume: "w", Claim: "shared", Usage: whole}, {Volume: "x", Claim: "device", Usage: volume.Usage{Capacity: of(5)}}},
	}
	var pods []*corev1.Pod
	for uid := range measured {
		pods = append(pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", UID: uid}})
	}
	s := New(Config{Pods: func() []*corev1.Pod { return pods }, Volumes: func(context.Context) map[types.UID][]volume.Measurement { return measured }})
	want := `# HELP kubelet_volume_stats_available_bytes Number of available bytes in the volume
# TYPE kubelet_volume_stats_available_bytes gauge
kubelet_volume_stats_available_bytes{namespace="ns",persistentvolumeclaim="shared"} 60
# HELP kubelet_volume_stats_capacity_bytes Capacity in bytes of the volume
# TYPE kubelet_volume_stats_capacity_bytes gauge
kubelet_volume_stats_capacity_bytes{namespace="ns",persistentvolumeclaim="device"} 5
kubelet_volume_stats_capacity_bytes{namespace="ns",persistentvolumeclaim="shared"} 100
# HELP kubelet_volume_stats_inodes Maximum number of inodes in the volume
# TYPE kubelet_volume_stats_inodes gauge
kubelet_volume_stats_inodes{namespace="ns",persistentvolumeclaim="shared"} 10
# HELP kubelet_volume_stats_inodes_free Number of free inodes in the volume
# TYPE kubelet_volume_stats_inodes_free gauge
kubelet_volume_stats_inodes_free{namespace="ns",persistentvolumeclaim="shared"} 7
# HELP kubelet_volume_stats_inodes_used Number of used inodes in the volume
# TYPE kubelet_volume_stats_inodes_used gauge
kubelet_volume_stats_inodes_used{namespace="ns",persistentvolumeclaim="shared"} 3
# HELP kubelet_volume_stats_used_bytes Number of used bytes in the volume
# TYPE kubelet_volume_stats_used_bytes gauge
kubelet_volume_stats_used_bytes{namespace="ns",persistentvolumeclaim="shared"} 40
`
	if err := testutil.CollectAndCompare(s.Claims(), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	all := volumes("ns", measured["1"])
	if len(all) != 2 || all[0].Name != "scratch" || all[0].PVCRef != nil || all[1].PVCRef == nil || all[1].PVCRef.Name != "shared" || *all[1].UsedBytes != 40 {
		t.Errorf("the summary tells %+v", all)
	}
}
