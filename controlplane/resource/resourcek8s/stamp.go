package resourcek8s

import (
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stamp notes when a taint was added, from which its tolerations count. It is done as the object is written and
// not as a default: what was stored must read the same tomorrow.
func stamp(t *resourcev1.DeviceTaint) {
	if t.TimeAdded == nil {
		t.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
	}
}

func stampSlice(s *resourcev1.ResourceSlice) {
	for i := range s.Spec.Devices {
		for j := range s.Spec.Devices[i].Taints {
			stamp(&s.Spec.Devices[i].Taints[j])
		}
	}
}
