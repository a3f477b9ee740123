package resourcequota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// settle is how long a charge may take to become an object that the informers show. Until then usage is not lowered:
// admission charges before it stores, and a measurement in between would give the charge back and let too much in.
const settle = 500 * time.Millisecond

// aliases are kinds that are counted under a name of their own, too.
var aliases = map[corev1.ResourceName]bool{
	corev1.ResourceConfigMaps: true, corev1.ResourceSecrets: true, corev1.ResourceReplicationControllers: true,
	corev1.ResourceQuotas: true, corev1.ResourcePods: true, corev1.ResourceServices: true, corev1.ResourcePersistentVolumeClaims: true,
}

// counted is the kind whose objects a quota's resource counts: count/<resource>[.<group>], or an alias.
func counted(name corev1.ResourceName) (schema.GroupResource, bool) {
	if kind, ok := strings.CutPrefix(string(name), "count/"); ok {
		return schema.ParseGroupResource(kind), true
	}
	return schema.GroupResource{Resource: string(name)}, aliases[name]
}

// measured is a quota's status by what was measured; what could not be measured stays as it was.
func measured(q *corev1.ResourceQuota, usage corev1.ResourceList) corev1.ResourceQuotaStatus {
	used := corev1.ResourceList{}
	for name := range q.Spec.Hard {
		if now, ok := usage[name]; ok {
			used[name] = now
		} else if before, ok := q.Status.Used[name]; ok {
			used[name] = before
		}
	}
	return corev1.ResourceQuotaStatus{Hard: q.Spec.Hard.DeepCopy(), Used: used}
}

// wait is how long a new status must be held back because the quota was charged so long ago.
func wait(before, after corev1.ResourceQuotaStatus, charged time.Duration) time.Duration {
	if charged >= settle || !equality.Semantic.DeepEqual(before.Hard, after.Hard) {
		return 0
	}
	for name, now := range after.Used {
		if was, ok := before.Used[name]; ok && now.Cmp(was) < 0 {
			return settle - charged
		}
	}
	return 0
}
