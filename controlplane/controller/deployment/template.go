package deployment

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Annotations on ReplicaSets (and the first on Deployments) that kubectl rollout reads.
const (
	revisionKey = "deployment.kubernetes.io/revision"
	historyKey  = "deployment.kubernetes.io/revision-history"
	desiredKey  = "deployment.kubernetes.io/desired-replicas"
	maximumKey  = "deployment.kubernetes.io/max-replicas"
)

// notCopied are Deployment annotations that say nothing about its ReplicaSets.
var notCopied = map[string]bool{
	corev1.LastAppliedConfigAnnotation: true, revisionKey: true, historyKey: true, desiredKey: true, maximumKey: true,
	appsv1.DeprecatedRollbackTo: true,
}

// newestSet finds the set that has the Deployment's template; the oldest if several do, so that every pass agrees.
func newestSet(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	var found *appsv1.ReplicaSet
	for _, rs := range sets {
		if sameTemplate(&d.Spec.Template, &rs.Spec.Template) && (found == nil || older(rs, found)) {
			found = rs
		}
	}
	return found
}

func older(a, b *appsv1.ReplicaSet) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.Name < b.Name
}

// sameTemplate compares all but the hash label that we add.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	delete(x.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(y.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(x, y)
}

// templateHash names a template; collisions is the Deployment's count of names that were taken.
func templateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	// Encoding an API type cannot fail.
	_ = json.NewEncoder(h).Encode(t)
	if collisions != nil {
		fmt.Fprint(h, *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// makeSet builds the ReplicaSet for the Deployment's template.
func makeSet(d *appsv1.Deployment, replicas, revision int64) *appsv1.ReplicaSet {
	hash := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	template := d.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	n := int32(replicas)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name + "-" + hash, Namespace: d.Namespace, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &n, MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: *template},
	}
	annotate(d, rs, revision)
	return rs
}

// annotate brings the set's annotations up to date and reports whether that changed anything.
func annotate(d *appsv1.Deployment, rs *appsv1.ReplicaSet, revision int64) bool {
	want := maps.Clone(rs.Annotations)
	if want == nil {
		want = map[string]string{}
	}
	for k, v := range d.Annotations {
		if !notCopied[k] {
			want[k] = v
		}
	}
	if old := revisionOf(rs); old != revision {
		if old > 0 {
			want[historyKey] = join(want[historyKey], strconv.FormatInt(old, 10))
		}
		want[revisionKey] = strconv.FormatInt(revision, 10)
	}
	want[desiredKey] = strconv.Itoa(int(*d.Spec.Replicas))
	want[maximumKey] = strconv.Itoa(int(*d.Spec.Replicas + surge(d)))
	if maps.Equal(want, rs.Annotations) {
		return false
	}
	rs.Annotations = want
	return true
}

func join(list, word string) string {
	if list == "" {
		return word
	}
	return list + "," + word
}

func revisionOf(o metav1.Object) int64 {
	n, err := strconv.ParseInt(o.GetAnnotations()[revisionKey], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func with(m map[string]string, k, v string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	out[k] = v
	return out
}
