package api

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

// idle is what controllers make here: pods that no node takes.
func idle(labels map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](0),
		NodeSelector: map[string]string{"x-test.k8s.io/unsatisfiable": "not-schedulable"}, Containers: []corev1.Container{{Name: "c", Image: agnhost}}}}
}

func (a *admin) controller(t *testing.T, ns, name string, replicas int32) *corev1.ReplicationController {
	t.Helper()
	labels := map[string]string{"rc": name}
	rc := must(a.CoreV1().ReplicationControllers(ns).Create(ctx, &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ReplicationControllerSpec{Replicas: &replicas, Selector: labels, Template: ptr.To(idle(labels))}}, metav1.CreateOptions{}))(t)
	a.pods(t, ns, "rc="+name, int(replicas))
	return rc
}

// pods waits for a number of pods.
func (a *admin) pods(t *testing.T, ns, selector string, want int) (list *corev1.PodList) {
	t.Helper()
	labtest.Eventually(t, "pods of "+selector, func() string {
		if list = must(a.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: selector}))(t); len(list.Items) == want {
			return ""
		}
		return fmt.Sprintf("%d, want %d", len(list.Items), want)
	})
	return list
}

// Dependents go with their owner in the background, before it in the foreground, stay as orphans if that is asked for, and wait for the
// last owner; circles and custom objects hinder nothing.
//
// Upstream's titles: Garbage collector should delete pods created by rc when not orphaning; should orphan pods created by rc if delete
// options say so; should delete RS created by deployment when not orphaning; should orphan RS created by deployment when
// deleteOptions.PropagationPolicy is Orphan; should keep the rc around until all its pods are deleted if the deleteOptions says so; should not
// delete dependents that have both valid owner and owner that's waiting for dependents to be deleted; should not be blocked by dependency
// circle; should support cascading deletion of custom resources; should support orphan deletion of custom resources; should delete jobs and pods created by cronjob.
func TestGarbage(t *testing.T) {
	a := cluster(t)
	background, foreground, orphan := metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan
	rcs := func(ns, name string, how metav1.DeletionPropagation) {
		uid := must(a.CoreV1().ReplicationControllers(ns).Get(ctx, name, metav1.GetOptions{}))(t).UID
		if err := a.CoreV1().ReplicationControllers(ns).Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &how, Preconditions: metav1.NewUIDPreconditions(string(uid))}); err != nil {
			t.Fatal(err)
		}
	}
	goes := func(t *testing.T, ns, name string) {
		t.Helper()
		labtest.Eventually(t, name+" goes", func() string {
			_, err := a.CoreV1().ReplicationControllers(ns).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return ""
			}
			return fmt.Sprint("it is there: ", err)
		})
	}
	t.Run("background", func(t *testing.T) {
		ns := a.namespace(t, "gc")
		a.controller(t, ns, "rc", 2)
		rcs(ns, "rc", background)
		a.pods(t, ns, "rc=rc", 0)
	})
	t.Run("orphans", func(t *testing.T) {
		ns := a.namespace(t, "gc")
		a.controller(t, ns, "rc", 10)
		rcs(ns, "rc", orphan)
		goes(t, ns, "rc")
		for _, p := range a.pods(t, ns, "rc=rc", 10).Items {
			if len(p.OwnerReferences) > 0 || p.DeletionTimestamp != nil {
				t.Errorf("%s is owned by %v", p.Name, p.OwnerReferences)
			}
		}
	})
	t.Run("foreground", func(t *testing.T) {
		ns := a.namespace(t, "gc")
		a.controller(t, ns, "rc", 10)
		patch := []byte(`{"metadata":{"finalizers":["example.com/hold"]}}`)
		held := a.pods(t, ns, "rc=rc", 10).Items[0].Name
		must(a.CoreV1().Pods(ns).Patch(ctx, held, types.MergePatchType, patch, metav1.PatchOptions{}))(t)
		rcs(ns, "rc", foreground)
		a.pods(t, ns, "rc=rc", 1)
		rc := must(a.CoreV1().ReplicationControllers(ns).Get(ctx, "rc", metav1.GetOptions{}))(t)
		if rc.DeletionTimestamp == nil || len(rc.Finalizers) != 1 || rc.Finalizers[0] != metav1.FinalizerDeleteDependents {
			t.Errorf("while a pod is held: %v %v", rc.DeletionTimestamp, rc.Finalizers)
		}
		must(a.CoreV1().Pods(ns).Patch(ctx, held, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}))(t)
		goes(t, ns, "rc")
		a.pods(t, ns, "rc=rc", 0)
	})
	t.Run("two owners", func(t *testing.T) {
		ns := a.namespace(t, "gc")
		a.controller(t, ns, "gone", 6)
		stays := a.controller(t, ns, "stays", 0)
		patch := fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ReplicationController","name":"stays","uid":%q}]}}`, stays.UID)
		for _, p := range a.pods(t, ns, "rc=gone", 6).Items[:3] {
			must(a.CoreV1().Pods(ns).Patch(ctx, p.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}))(t)
		}
		rcs(ns, "gone", foreground)
		goes(t, ns, "gone")
		for _, p := range a.pods(t, ns, "rc=gone", 3).Items {
			if p.DeletionTimestamp != nil || len(p.OwnerReferences) != 1 || p.OwnerReferences[0].Name != "stays" {
				t.Errorf("%s is owned by %v, deleted %v", p.Name, p.OwnerReferences, p.DeletionTimestamp)
			}
		}
	})
	t.Run("circle", func(t *testing.T) { circle(t, a) })
	t.Run("deployment", func(t *testing.T) {
		ns := a.namespace(t, "gc")
		for name, how := range map[string]metav1.DeletionPropagation{"with": background, "without": orphan} {
			labels := map[string]string{"d": name}
			must(a.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
				Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: idle(labels)}}, metav1.CreateOptions{}))(t)
			a.pods(t, ns, "d="+name, 2)
			if err := a.AppsV1().Deployments(ns).Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &how}); err != nil {
				t.Fatal(err)
			}
			labtest.Eventually(t, "deployment "+name, func() string {
				if _, err := a.AppsV1().Deployments(ns).Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
					return fmt.Sprint("it is there: ", err)
				}
				sets := must(a.AppsV1().ReplicaSets(ns).List(ctx, metav1.ListOptions{LabelSelector: "d=" + name}))(t)
				if how == background && len(sets.Items) == 0 || how == orphan && len(sets.Items) == 1 && len(sets.Items[0].OwnerReferences) == 0 {
					return ""
				}
				return fmt.Sprint(len(sets.Items), " ReplicaSets")
			})
		}
		a.pods(t, ns, "d=with", 0)
		a.pods(t, ns, "d=without", 2)
	})
	t.Run("custom objects", func(t *testing.T) { customGarbage(t, a) })
}

// circle makes three pods that own each other in a ring.
func circle(t *testing.T, a *admin) {
	ns := a.namespace(t, "gc")
	q := quotas{a, t, ns}
	var pods []*corev1.Pod
	for i := range 3 {
		pods = append(pods, must(q.pod(fmt.Sprint("p", i), nil, nil))(t))
	}
	for i, p := range pods {
		owner := pods[(i+2)%3]
		patch := fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":%q,"uid":%q,"controller":true,"blockOwnerDeletion":true}]}}`, owner.Name, owner.UID)
		must(a.CoreV1().Pods(ns).Patch(ctx, p.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}))(t)
	}
	if err := a.CoreV1().Pods(ns).Delete(ctx, "p0", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		t.Fatal(err)
	}
	a.pods(t, ns, "", 0)
}

func customGarbage(t *testing.T, a *admin) {
	d, clients := a.crd(t, "garbage.example.com", "Thing", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", anything)})
	ns := a.namespace(t, "gc")
	client := clients[0].Namespace(ns)
	own := func(owner *unstructured.Unstructured, name string) {
		o := object(d, "v1", name, nil)
		o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: owner.GetAPIVersion(), Kind: owner.GetKind(), Name: owner.GetName(), UID: owner.GetUID()}})
		must(client.Create(ctx, o, metav1.CreateOptions{}))(t)
	}
	gone := func(name string) {
		t.Helper()
		labtest.Eventually(t, name+" goes", func() string {
			if _, err := client.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Sprint("it is there: ", err)
			}
			return ""
		})
	}
	owner := must(client.Create(ctx, object(d, "v1", "owner", nil), metav1.CreateOptions{}))(t)
	own(owner, "dependent")
	if err := client.Delete(ctx, "owner", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
		t.Fatal(err)
	}
	gone("owner")
	gone("dependent")
	owner = must(client.Create(ctx, object(d, "v1", "owner", nil), metav1.CreateOptions{}))(t)
	own(owner, "orphan")
	if err := client.Delete(ctx, "owner", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationOrphan)}); err != nil {
		t.Fatal(err)
	}
	gone("owner")
	if o := must(client.Get(ctx, "orphan", metav1.GetOptions{}))(t); len(o.GetOwnerReferences()) != 0 {
		t.Errorf("the orphan is owned by %v", o.GetOwnerReferences())
	}
}

// A namespace takes labels, finalizers and conditions, and takes everything in it along when it goes; one of its name begins empty.
//
// Upstream's titles: Namespaces should ensure that all pods are removed when a namespace is deleted; ... all services ...; should patch a
// Namespace; should apply changes to a namespace status; should apply an update to a Namespace; should apply a finalizer to a Namespace.
func TestNamespaces(t *testing.T) {
	a := cluster(t)
	api := a.CoreV1().Namespaces()
	ns := a.namespace(t, "ns")
	if o := must(api.Patch(ctx, ns, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"testLabel":"testValue"}}}`), metav1.PatchOptions{}))(t); o.Labels["testLabel"] != "testValue" || o.Status.Phase != corev1.NamespaceActive {
		t.Errorf("%v %v", o.Labels, o.Status)
	}
	o := must(api.Patch(ctx, ns, types.MergePatchType, []byte(`{"metadata":{"annotations":{"e2e-patched-ns-status":"x"}},"status":{"conditions":[{"type":"StatusPatch","status":"True","reason":"E2E patchStatus","message":"Patched by an e2e test"}]}}`), metav1.PatchOptions{}, "status"))(t)
	if o.Annotations["e2e-patched-ns-status"] != "x" || len(o.Status.Conditions) != 1 || o.Status.Conditions[0].Reason != "E2E patchStatus" {
		t.Errorf("status patched: %v %v", o.Annotations, o.Status)
	}
	o.Status.Conditions = append(o.Status.Conditions, corev1.NamespaceCondition{Type: "StatusUpdate", Status: corev1.ConditionTrue, Reason: "E2E", Message: "Updated by an e2e test"})
	if o = must(api.UpdateStatus(ctx, o, metav1.UpdateOptions{}))(t); len(o.Status.Conditions) != 2 || o.Status.Phase != corev1.NamespaceActive {
		t.Errorf("status updated: %v", o.Status)
	}
	o.Spec.Finalizers = append(o.Spec.Finalizers, "e2e.example.com/fakeFinalizer")
	if o = must(api.Finalize(ctx, o, metav1.UpdateOptions{}))(t); len(o.Spec.Finalizers) != 2 {
		t.Errorf("finalizers: %v", o.Spec.Finalizers)
	}
	o.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
	if o = must(api.Finalize(ctx, o, metav1.UpdateOptions{}))(t); len(o.Spec.Finalizers) != 1 {
		t.Errorf("finalizers: %v", o.Spec.Finalizers)
	}
	o.Labels["updated"] = "yes"
	if o = must(api.Update(ctx, o, metav1.UpdateOptions{}))(t); o.Labels["updated"] != "yes" {
		t.Errorf("labels: %v", o.Labels)
	}
	if out, err := a.kubectlIn(ns, "{kind: Pod, apiVersion: v1, metadata: {name: test-pod}, spec: {containers: [{name: c, image: "+agnhost+"}]}}", "create", "-f", "-"); err != nil {
		t.Fatal(out)
	}
	a.kubectl(t, ns, "create", "service", "clusterip", "test-service", "--tcp=80")
	a.kubectl(t, ns, "wait", "--for=condition=Ready", "pod/test-pod", "--timeout=60s")
	if err := api.Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "the namespace goes", func() string {
		o, err := api.Get(ctx, ns, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return ""
		}
		return fmt.Sprint(o.Status, err)
	})
	must(api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}))(t)
	if _, err := a.CoreV1().Pods(ns).Get(ctx, "test-pod", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	if _, err := a.CoreV1().Services(ns).Get(ctx, "test-service", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// A hundred namespaces that are deleted at once are soon gone.
//
// Upstream's title: Namespaces should always delete fast (ALL of 100 namespaces in 150 seconds).
func TestHundredNamespaces(t *testing.T) {
	a := cluster(t)
	api := a.CoreV1().Namespaces()
	const label = "conformance.example.com/crowd"
	for i := range 100 {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("crowd-%d", i), Labels: map[string]string{label: "yes"}}}
		must(api.Create(ctx, ns, metav1.CreateOptions{}))(t)
	}
	for i := range 100 {
		if err := api.Delete(ctx, fmt.Sprintf("crowd-%d", i), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	labtest.Eventually(t, "all of them go", func() string {
		left := must(api.List(ctx, metav1.ListOptions{LabelSelector: label}))(t)
		if len(left.Items) == 0 {
			return ""
		}
		return fmt.Sprintf("%d are left, %s with %v", len(left.Items), left.Items[0].Name, left.Items[0].Status.Conditions)
	})
}
