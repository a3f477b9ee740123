package eviction

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func usage(name string, priority int32, request string, used uint64) Usage {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Spec.Priority = &priority
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(request)}}}}
	return Usage{Pod: p, Memory: used << 20}
}

func TestRank(t *testing.T) {
	immune := usage("static", 0, "0", 900)
	immune.Immune = true
	pods := []Usage{
		usage("within", 0, "500Mi", 400), usage("over-little", 0, "100Mi", 150), usage("over-much", 0, "100Mi", 300),
		usage("over-important", 1000, "0", 800), immune,
	}
	var got []string
	for _, u := range Rank(Memory, pods) {
		got = append(got, u.Pod.Name)
	}
	if want := []string{"over-much", "over-little", "over-important", "within"}; !slices.Equal(got, want) {
		t.Errorf("order = %q, want %q", got, want)
	}
}

func TestDecide(t *testing.T) {
	pods := []Usage{usage("a", 0, "0", 300)}
	if short, v := Decide([]Level{{Memory, 200 << 20, 100 << 20}}, pods); short != nil || v != nil {
		t.Errorf("nothing is short, but %+v evicts %+v", short, v)
	}
	short, v := Decide([]Level{{Memory, 50 << 20, 100 << 20}}, pods)
	if short == nil || v == nil || v.Pod.Name != "a" || !strings.HasPrefix(v.Message, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. ") {
		t.Errorf("Decide = %+v, %+v", short, v)
	}
	pods[0].Immune = true
	if short, v := Decide([]Level{{Memory, 0, 1}}, pods); short == nil || v != nil {
		t.Errorf("nobody may go, but %+v does (short %+v)", v, short)
	}
}

func TestOverLimit(t *testing.T) {
	p := usage("a", 0, "0", 0).Pod
	limit := resource.MustParse("1Mi")
	p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	if msg := OverLimit(p, 0, map[string]uint64{"scratch": 1 << 20}); msg != "" {
		t.Errorf("at the limit: %q", msg)
	}
	if msg := OverLimit(p, 0, map[string]uint64{"scratch": 1<<20 + 1}); msg != `Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". ` {
		t.Errorf("over the limit: %q", msg)
	}
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	if OverLimit(p, 2<<20, nil) == "" {
		t.Error("over the ephemeral-storage limit: no message")
	}
}

// ND20: 200 BestEffort pods allocate, and go one by one, the largest first, whatever order they are told in; Guaranteed pods within
// their requests go after all of them, critical ones never.
func TestHostile_ND20(t *testing.T) {
	const many = 200
	critical := usage("critical", 0, "0", 5000)
	critical.Immune = true
	pods := []Usage{usage("guaranteed", 0, "2Gi", 2000), critical}
	for i := range many {
		pods = append(pods, usage(strconv.Itoa(i), 0, "0", uint64(1+i*77%many))) // 77 and 200 share no divisor: each size once
	}
	levels := []Level{{Memory, 0, 100 << 20}}
	for size := many; size >= 1; size-- {
		_, v := Decide(levels, pods)
		i := slices.IndexFunc(pods, func(u Usage) bool { return v != nil && u.Pod == v.Pod })
		if i < 0 || pods[i].Memory != uint64(size)<<20 {
			t.Fatalf("with %d left, the victim is %+v, want the one with %d MiB", len(pods), v, size)
		}
		pods = slices.Delete(pods, i, i+1)
	}
	if _, v := Decide(levels, pods); v == nil || v.Pod.Name != "guaranteed" {
		t.Errorf("after the BestEffort pods goes %+v, want the Guaranteed one", v)
	}
}
