package resourcequota

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func TestMeasured(t *testing.T) {
	q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("pods", "5", "count/widgets.example.com", "2", "secrets", "9")},
		Status: corev1.ResourceQuotaStatus{Used: list("pods", "4", "count/widgets.example.com", "1", "gone", "3")}}
	got := measured(q, list("pods", "1", "unasked", "7"))
	if len(got.Hard) != 3 || len(got.Used) != 2 {
		t.Fatalf("status %v", got)
	}
	for name, want := range map[corev1.ResourceName]int64{"pods": 1, "count/widgets.example.com": 1} {
		if v := got.Used[name]; v.Value() != want {
			t.Errorf("used %s is %d, want %d", name, v.Value(), want)
		}
	}
}

func TestCounted(t *testing.T) {
	for name, want := range map[string]string{
		"pods": "pods", "secrets": "secrets", "count/configmaps": "configmaps", "count/deployments.apps": "deployments.apps",
		"requests.cpu": "", "services.nodeports": "", "requests.nvidia.com/gpu": "", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "",
	} {
		got, ok := counted(corev1.ResourceName(name))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s counts %q (%t), want %q", name, got, ok, want)
		}
	}
}

// TestWait: what was charged a moment ago is not given back yet, whatever the informers show.
func TestWait(t *testing.T) {
	status := func(hard, used string) corev1.ResourceQuotaStatus {
		return corev1.ResourceQuotaStatus{Hard: list("pods", hard), Used: list("pods", used)}
	}
	for _, c := range []struct {
		name          string
		before, after corev1.ResourceQuotaStatus
		charged       time.Duration
		want          time.Duration
	}{
		{"lower, charged just now", status("5", "3"), status("5", "2"), 100 * time.Millisecond, settle - 100*time.Millisecond},
		{"lower, charged long ago", status("5", "3"), status("5", "2"), time.Hour, 0},
		{"higher", status("5", "3"), status("5", "4"), 0, 0},
		{"another limit", status("5", "3"), status("6", "2"), 0, 0},
		{"first", corev1.ResourceQuotaStatus{}, status("6", "2"), 0, 0},
	} {
		if got := wait(c.before, c.after, c.charged); got != c.want {
			t.Errorf("%s: wait %v, want %v", c.name, got, c.want)
		}
	}
}
