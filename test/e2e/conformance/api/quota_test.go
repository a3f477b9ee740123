package api

import (
	"encoding/json"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

// resources reads a list of resources.
func resources(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i+1 < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

// quotas are a namespace and the quotas in it.
type quotas struct {
	*admin
	t  *testing.T
	ns string
}

func (q quotas) create(name string, scopes []corev1.ResourceQuotaScope, hard corev1.ResourceList) {
	q.t.Helper()
	o := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes}}
	must(q.CoreV1().ResourceQuotas(q.ns).Create(ctx, o, metav1.CreateOptions{}))(q.t)
}

// uses waits until a quota's status says so.
func (q quotas) uses(name string, pairs ...string) {
	q.t.Helper()
	labtest.Eventually(q.t, "quota "+name, func() string {
		o := must(q.CoreV1().ResourceQuotas(q.ns).Get(ctx, name, metav1.GetOptions{}))(q.t)
		for resource, want := range resources(pairs...) {
			if got, there := o.Status.Used[resource]; !there || got.Cmp(want) != 0 {
				return fmt.Sprintf("%s %s, want %s", resource, got.String(), want.String())
			}
		}
		return ""
	})
}

// pod is one that may wait for ever; change is optional.
func (q quotas) pod(name string, requests, limits corev1.ResourceList, change ...func(*corev1.PodSpec)) (*corev1.Pod, error) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeSelector: map[string]string{"x-test.k8s.io/unsatisfiable": "not-schedulable"},
		Containers: []corev1.Container{{Name: "pause", Image: agnhost, Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}}}
	for _, f := range change {
		f(&p.Spec)
	}
	return q.CoreV1().Pods(q.ns).Create(ctx, p, metav1.CreateOptions{})
}

func (q quotas) unpod(name string) {
	q.t.Helper()
	if err := q.CoreV1().Pods(q.ns).Delete(ctx, name, *metav1.NewDeleteOptions(0)); err != nil {
		q.t.Fatal(err)
	}
}

// A quota counts services, pods and what they ask for, Secrets, ConfigMaps, ReplicaSets, controllers and claims as they come and go,
// refuses what does not fit, and counts nothing of what it refused.
//
// Upstream's titles: should create a ResourceQuota and ensure its status is promptly calculated; ... capture the life of a service; a secret;
// a pod; a configMap; a replication controller; a replica set; a persistent volume claim; a persistent volume claim with a storage class; a custom resource.
func TestQuotaCounts(t *testing.T) {
	a := cluster(t)
	q := quotas{a, t, a.namespace(t, "quota")}
	q.create("q", nil, resources("pods", "5", "services", "10", "services.nodeports", "1", "services.loadbalancers", "1", "replicationcontrollers", "10", "resourcequotas", "1", "configmaps", "10",
		"secrets", "10", "persistentvolumeclaims", "10", "requests.storage", "10Gi", "cpu", "1", "memory", "500Mi", "ephemeral-storage", "50Gi", "count/replicasets.apps", "5",
		"requests.example.com/dongle", "3", "gold.storageclass.storage.k8s.io/persistentvolumeclaims", "10", "gold.storageclass.storage.k8s.io/requests.storage", "10Gi"))
	q.uses("q", "resourcequotas", "1", "pods", "0", "configmaps", "1", "count/replicasets.apps", "0") // kube-root-ca.crt is a ConfigMap

	service := func(name string, kind corev1.ServiceType) error {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: kind, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80)}}}}
		if kind == corev1.ServiceTypeLoadBalancer {
			s.Spec.AllocateLoadBalancerNodePorts = ptr.To(true)
		}
		_, err := a.CoreV1().Services(q.ns).Create(ctx, s, metav1.CreateOptions{})
		return err
	}
	if err := service("s", corev1.ServiceTypeClusterIP); err != nil {
		t.Fatal(err)
	}
	if err := service("np", corev1.ServiceTypeNodePort); err != nil {
		t.Fatal(err)
	}
	if err := service("lb", corev1.ServiceTypeLoadBalancer); !apierrors.IsForbidden(err) {
		t.Errorf("a second node port: %v", err)
	}
	q.uses("q", "services", "2", "services.nodeports", "1", "services.loadbalancers", "0")
	for _, name := range []string{"s", "np"} {
		if err := a.CoreV1().Services(q.ns).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	q.uses("q", "services", "0", "services.nodeports", "0")

	pod := must(q.pod("p", resources("cpu", "500m", "memory", "252Mi", "ephemeral-storage", "30Gi", "example.com/dongle", "2"), resources("example.com/dongle", "2")))(t)
	used := []string{"pods", "1", "cpu", "500m", "memory", "252Mi", "ephemeral-storage", "30Gi", "requests.example.com/dongle", "2"}
	q.uses("q", used...)
	if _, err := q.pod("big", resources("cpu", "600m", "memory", "100Mi"), nil); !apierrors.IsForbidden(err) {
		t.Errorf("too much cpu: %v", err)
	}
	if _, err := q.pod("odd", resources("cpu", "500m", "memory", "100Mi", "ephemeral-storage", "30Gi", "example.com/dongle", "2"), resources("example.com/dongle", "2")); !apierrors.IsForbidden(err) {
		t.Errorf("too many dongles: %v", err)
	}
	pod.Spec.Containers[0].Resources.Requests = resources("cpu", "100m", "memory", "100Mi", "ephemeral-storage", "10Gi")
	if _, err := a.CoreV1().Pods(q.ns).Update(ctx, pod, metav1.UpdateOptions{}); err == nil {
		t.Error("a pod's requests were changed")
	}
	q.uses("q", used...)
	q.unpod("p")
	q.uses("q", "pods", "0", "cpu", "0", "memory", "0", "ephemeral-storage", "0", "requests.example.com/dongle", "0")

	for _, c := range []struct{ manifest, kind, counted, storage string }{
		{"kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}", "configmap", "configmaps", ""},
		{"kind: Secret\napiVersion: v1\nmetadata: {name: x}\nstringData: {a: b}", "secret", "secrets", ""},
		{"kind: ReplicaSet\napiVersion: apps/v1\nmetadata: {name: x}\nspec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}", "replicaset", "count/replicasets.apps", ""},
		{"kind: ReplicationController\napiVersion: v1\nmetadata: {name: x}\nspec: {replicas: 0, selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}", "rc", "replicationcontrollers", ""},
		{"kind: PersistentVolumeClaim\napiVersion: v1\nmetadata: {name: x}\nspec: {storageClassName: gold, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}", "pvc", "gold.storageclass.storage.k8s.io/persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			q := quotas{a, t, q.ns}
			before := 0
			if c.kind == "configmap" {
				before = 1
			}
			if out, err := a.kubectlIn(q.ns, c.manifest, "create", "-f", "-"); err != nil {
				t.Fatal(out)
			}
			q.uses("q", c.counted, fmt.Sprint(before+1))
			if c.storage != "" {
				q.uses("q", c.storage, "1Gi", "requests.storage", "1Gi", "persistentvolumeclaims", "1")
			}
			a.kubectl(t, q.ns, "delete", c.kind, "x", "--wait=false")
			q.uses("q", c.counted, fmt.Sprint(before))
		})
	}
}

// A quota with a scope counts the pods of the scope alone.
//
// Upstream's titles: should verify ResourceQuota with best effort scope; ... with terminating scopes; ResourceQuota [Feature:PodPriority] with priority class scope.
func TestQuotaScopes(t *testing.T) {
	a := cluster(t)
	best := quotas{a, t, a.namespace(t, "besteffort")}
	best.create("best", []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}, resources("pods", "5"))
	best.create("not", []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeNotBestEffort}, resources("pods", "5"))
	best.uses("best", "pods", "0")
	best.uses("not", "pods", "0")
	must(best.pod("b", nil, nil))(t)
	best.uses("best", "pods", "1")
	best.uses("not", "pods", "0")
	best.unpod("b")
	best.uses("best", "pods", "0")
	must(best.pod("n", resources("cpu", "500m", "memory", "200Mi"), resources("cpu", "1", "memory", "400Mi")))(t)
	best.uses("best", "pods", "0")
	best.uses("not", "pods", "1")
	best.unpod("n")
	best.uses("not", "pods", "0")

	ends := quotas{a, t, a.namespace(t, "terminating")}
	hard := resources("pods", "5", "requests.cpu", "1", "requests.memory", "500Mi", "limits.cpu", "2", "limits.memory", "1Gi")
	ends.create("ends", []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating}, hard)
	ends.create("not", []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeNotTerminating}, hard)
	ends.uses("ends", "pods", "0")
	ends.uses("not", "pods", "0")
	requests, limits := resources("cpu", "500m", "memory", "200Mi"), resources("cpu", "1", "memory", "400Mi")
	all, none := []string{"pods", "1", "requests.cpu", "500m", "requests.memory", "200Mi", "limits.cpu", "1", "limits.memory", "400Mi"}, []string{"pods", "0", "requests.cpu", "0", "requests.memory", "0", "limits.cpu", "0", "limits.memory", "0"}
	must(ends.pod("long", requests, limits))(t)
	ends.uses("not", all...)
	ends.uses("ends", none...)
	ends.unpod("long")
	ends.uses("not", none...)
	must(ends.pod("short", requests, limits, func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](3600) }))(t)
	ends.uses("ends", all...)
	ends.uses("not", none...)
	ends.unpod("short")
	ends.uses("ends", none...)
}

// A quota's hard limits are written by its spec; the status is written apart and does not touch the spec, and follows it again.
//
// Upstream's titles: should be able to update and delete ResourceQuota; should manage the lifecycle of a ResourceQuota; should apply changes to a resourcequota status.
func TestQuotaStatus(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "quotastatus")
	q := quotas{a, t, ns}
	api := a.CoreV1().ResourceQuotas(ns)
	q.create("q", nil, resources("cpu", "500m", "memory", "500Mi"))
	hard := func(list corev1.ResourceList, cpu, memory string) bool {
		c, m := list[corev1.ResourceCPU], list[corev1.ResourceMemory]
		return c.Cmp(resource.MustParse(cpu)) == 0 && m.Cmp(resource.MustParse(memory)) == 0
	}
	follows := func(cpu, memory string) {
		t.Helper()
		labtest.Eventually(t, "the status follows the spec", func() string {
			o := must(api.Get(ctx, "q", metav1.GetOptions{}))(t)
			if hard(o.Spec.Hard, cpu, memory) && hard(o.Status.Hard, cpu, memory) {
				return ""
			}
			return fmt.Sprint(o.Spec.Hard, o.Status.Hard)
		})
	}
	follows("500m", "500Mi")
	labtest.Eventually(t, "update of the spec", func() string {
		o := must(api.Get(ctx, "q", metav1.GetOptions{}))(t)
		o.Spec.Hard = resources("cpu", "1", "memory", "1Gi")
		_, err := api.Update(ctx, o, metav1.UpdateOptions{})
		return complaint(err)
	})
	follows("1", "1Gi")
	labtest.Eventually(t, "update of the status", func() string {
		o := must(api.Get(ctx, "q", metav1.GetOptions{}))(t)
		o.Status.Hard = resources("cpu", "2", "memory", "2Gi")
		o, err := api.UpdateStatus(ctx, o, metav1.UpdateOptions{})
		if err != nil {
			return err.Error()
		}
		if !hard(o.Status.Hard, "2", "2Gi") || !hard(o.Spec.Hard, "1", "1Gi") {
			t.Errorf("written: %v %v", o.Spec.Hard, o.Status.Hard)
		}
		return ""
	})
	follows("1", "1Gi")
	patch := must(json.Marshal(map[string]any{"spec": map[string]any{"hard": map[string]string{"cpu": "9", "memory": "9Gi"}}, "status": map[string]any{"hard": map[string]string{"cpu": "3", "memory": "3Gi"}}}))(t)
	o := must(api.Patch(ctx, "q", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"))(t)
	if !hard(o.Status.Hard, "3", "3Gi") || !hard(o.Spec.Hard, "1", "1Gi") {
		t.Errorf("patched: %v %v", o.Spec.Hard, o.Status.Hard)
	}
	follows("1", "1Gi")
	if err := api.Delete(ctx, "q", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Get(ctx, "q", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}
