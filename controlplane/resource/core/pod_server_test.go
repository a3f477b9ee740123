package core_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

type pods struct {
	corev1client.PodInterface
	client kubernetes.Interface
	t      *testing.T
}

func (p pods) made(name string, change func(*corev1.Pod)) *corev1.Pod {
	p.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "a"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox:1"}}}}
	if change != nil {
		change(pod)
	}
	return ok[*corev1.Pod](p.t)(p.Create(p.t.Context(), pod, create))
}

func (p pods) now(name string) *corev1.Pod {
	p.t.Helper()
	return ok[*corev1.Pod](p.t)(p.Get(p.t.Context(), name, get))
}

func (p pods) bind(name, node string) error {
	return p.Bind(p.t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"zone": "z"},
		Annotations: map[string]string{"by": "test"}}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}, create)
}

// running binds the pod and says, as a kubelet would, that it runs.
func (p pods) running(name string) *corev1.Pod {
	p.t.Helper()
	if err := p.bind(name, "n1"); err != nil {
		p.t.Fatal(err)
	}
	pod := p.now(name)
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIPs = []corev1.PodIP{{IP: "10.244.0.9"}}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
	return ok[*corev1.Pod](p.t)(p.UpdateStatus(p.t.Context(), pod, update))
}

func (p pods) kill(name string) {
	p.t.Helper()
	if err := p.Delete(p.t.Context(), name, *metav1.NewDeleteOptions(0)); err != nil {
		p.t.Fatal(err)
	}
}

func TestPods(t *testing.T) {
	client, _ := start(t, t.TempDir())
	for _, test := range []struct {
		name string
		run  func(*testing.T, pods)
	}{
		{"create", testPodCreate}, {"bind", testBind}, {"delete", testPodDelete}, {"update", testPodUpdate},
		{"resize", testResize}, {"ephemeral containers", testEphemeral}, {"evict", testEvict}, {"select", testSelect},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, pods{client.CoreV1().Pods("default"), client, t}) })
	}
}

func testPodCreate(t *testing.T, p pods) {
	pod := p.made("p", func(pod *corev1.Pod) {
		pod.Generation, pod.Status.Phase = 7, corev1.PodFailed
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	})
	if pod.Generation != 1 || pod.Status.Phase != corev1.PodPending || pod.Status.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("generation %d, phase %s, class %s", pod.Generation, pod.Status.Phase, pod.Status.QOSClass)
	}
	if cpu := pod.Spec.Containers[0].Resources.Requests.Cpu(); cpu.String() != "100m" {
		t.Errorf("requests %s of cpu", cpu)
	}
	gated := p.made("gated", func(pod *corev1.Pod) {
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
	})
	if c := gated.Status.Conditions; len(c) != 1 || c[0].Type != corev1.PodScheduled || c[0].Reason != "SchedulingGated" {
		t.Errorf("conditions of a gated pod: %+v", c)
	}
	wantError(t, p.bind("gated", "n1"), "pod gated has non-empty .spec.schedulingGates")
	_, err := p.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "astray"},
		Spec: corev1.PodSpec{NodeName: "a/b", Containers: []corev1.Container{{Name: "c", Image: "busybox:1"}}}}, create)
	wantError(t, err, `spec.nodeName: Invalid value: "a/b"`)
	p.kill("p")
	p.kill("gated")
}

func testBind(t *testing.T, p pods) {
	p.made("p", nil)
	if err := p.bind("p", "n1"); err != nil {
		t.Fatal(err)
	}
	pod := p.now("p")
	if pod.Spec.NodeName != "n1" || pod.Labels["zone"] != "z" || pod.Annotations["by"] != "test" || pod.Generation != 1 {
		t.Errorf("bound pod: node %q, labels %v, annotations %v, generation %d", pod.Spec.NodeName, pod.Labels, pod.Annotations, pod.Generation)
	}
	if c := pod.Status.Conditions; len(c) != 1 || c[0].Type != corev1.PodScheduled || c[0].Status != corev1.ConditionTrue {
		t.Errorf("conditions: %+v", c)
	}
	err := p.bind("p", "n2")
	wantError(t, err, `Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"`)
	if !apierrors.IsConflict(err) {
		t.Errorf("a second binding is refused with %v", err)
	}
	if err := p.Delete(t.Context(), "p", remove); err != nil {
		t.Fatal(err)
	}
	wantError(t, p.bind("p", "n1"), "pod p is being deleted, cannot be assigned to a host")
	wantError(t, p.bind("none", "n1"), `"none" not found`)
	err = p.Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Pod"}}, create)
	wantError(t, err, `target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"`)
	p.kill("p")
}

func testPodDelete(t *testing.T, p pods) {
	p.made("waiting", nil)
	if err := p.Delete(t.Context(), "waiting", remove); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Get(t.Context(), "waiting", get); !apierrors.IsNotFound(err) {
		t.Errorf("a pod on no node is still there: %v", err)
	}
	p.made("p", nil)
	p.running("p")
	for _, step := range []struct {
		options *metav1.DeleteOptions
		want    int64
	}{{&metav1.DeleteOptions{}, 30}, {metav1.NewDeleteOptions(60), 30}, {metav1.NewDeleteOptions(-5), 1}} {
		if err := p.Delete(t.Context(), "p", *step.options); err != nil {
			t.Fatal(err)
		}
		pod := p.now("p")
		if pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil || *pod.DeletionGracePeriodSeconds != step.want {
			t.Errorf("deleted with %v: %v, grace %v", step.options.GracePeriodSeconds, pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds)
		}
	}
	p.kill("p")
	if _, err := p.Get(t.Context(), "p", get); !apierrors.IsNotFound(err) {
		t.Errorf("a killed pod is still there: %v", err)
	}
	p.made("done", nil)
	pod := p.running("done")
	pod.Status.Phase = corev1.PodSucceeded
	ok[*corev1.Pod](t)(p.UpdateStatus(t.Context(), pod, update))
	var table metav1.Table
	shown := p.client.CoreV1().RESTClient().Get().Resource("pods").Namespace(pod.Namespace).Name("done").
		SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	if err := json.Unmarshal(ok[[]byte](t)(shown.DoRaw(t.Context())), &table); err != nil {
		t.Fatal(err)
	}
	if c := table.Rows[0].Conditions; len(c) != 1 || c[0].Type != metav1.RowCompleted || c[0].Reason != "Succeeded" {
		t.Errorf("the row of an ended pod has the conditions %v", c)
	}
	if err := p.Delete(t.Context(), "done", remove); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Get(t.Context(), "done", get); !apierrors.IsNotFound(err) {
		t.Errorf("an ended pod is still there: %v", err)
	}
}

func testPodUpdate(t *testing.T, p pods) {
	pod := p.made("p", nil)
	pod.Spec.Containers[0].Image = "busybox:2"
	pod.Status.Phase = corev1.PodFailed
	pod = ok[*corev1.Pod](t)(p.Update(t.Context(), pod, update))
	if pod.Generation != 2 || pod.Status.Phase != corev1.PodPending {
		t.Errorf("after an update: generation %d, phase %s", pod.Generation, pod.Status.Phase)
	}
	pod.Labels["x"] = "y"
	pod = ok[*corev1.Pod](t)(p.Update(t.Context(), pod, update))
	if pod.Generation != 2 {
		t.Errorf("a label made generation %d", pod.Generation)
	}
	pod.Spec.Containers[0].Command = []string{"true"}
	_, err := p.Update(t.Context(), pod, update)
	wantError(t, err, "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"+
		"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "+
		"(allow it to be set to 1 if it was previously negative)")
	// A status update changes no spec, and what it does not know stays.
	pod = p.now("p")
	pod.Spec.Containers[0].Image = "busybox:3"
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	pod = ok[*corev1.Pod](t)(p.UpdateStatus(t.Context(), pod, update))
	if pod.Spec.Containers[0].Image != "busybox:2" || pod.Status.Phase != corev1.PodRunning || pod.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("after a status update: %s, %s, %q", pod.Spec.Containers[0].Image, pod.Status.Phase, pod.Status.QOSClass)
	}
	p.kill("p")
}

func testResize(t *testing.T, p pods) {
	cpu := func(amount string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}}
	}
	pod := p.made("p", func(pod *corev1.Pod) { pod.Spec.Containers[0].Resources = cpu("100m") })
	pod.Spec.Containers[0].Resources = cpu("200m")
	if _, err := p.Update(t.Context(), pod, update); !apierrors.IsInvalid(err) {
		t.Errorf("resources changed in an ordinary update: %v", err)
	}
	pod.Spec.Containers[0].Image = "other" // not the business of resize
	pod = ok[*corev1.Pod](t)(p.UpdateResize(t.Context(), "p", pod, update))
	if got := pod.Spec.Containers[0]; got.Resources.Requests.Cpu().String() != "200m" || got.Image != "busybox:1" || pod.Generation != 2 {
		t.Errorf("resized: %s, %s, generation %d", got.Resources.Requests.Cpu(), got.Image, pod.Generation)
	}
	apply := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"busybox:1","resources":{"requests":{"cpu":"300m"}}}]}}`
	force := true
	pod = ok[*corev1.Pod](t)(p.Patch(t.Context(), "p", types.ApplyPatchType, []byte(apply), metav1.PatchOptions{FieldManager: "sizer", Force: &force}, "resize"))
	for _, m := range pod.ManagedFields {
		if own := string(m.FieldsV1.Raw); m.Manager == "sizer" && (!strings.Contains(own, "f:cpu") || strings.Contains(own, "f:image")) {
			t.Errorf("who resized the pod owns %s, want its resources alone", own)
		}
	}
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	_, err := p.UpdateResize(t.Context(), "p", pod, update)
	wantError(t, err, "Pod QOS Class may not change as a result of resizing")
	wantError(t, err, "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed")
	p.kill("p")
}

func testEphemeral(t *testing.T, p pods) {
	pod := p.made("p", nil)
	debug := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox:1"}}
	pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, debug)
	pod = ok[*corev1.Pod](t)(p.UpdateEphemeralContainers(t.Context(), "p", pod, update))
	if got := pod.Spec.EphemeralContainers; len(got) != 1 || got[0].TerminationMessagePath != "/dev/termination-log" {
		t.Errorf("ephemeral containers: %+v", got)
	}
	pod.Spec.EphemeralContainers = nil
	_, err := p.UpdateEphemeralContainers(t.Context(), "p", pod, update)
	wantError(t, err, `existing ephemeral containers "debug" may not be removed`)
	p.kill("p")
}

func testEvict(t *testing.T, p pods) {
	evict := func(name string, dry ...string) error {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, DeleteOptions: &metav1.DeleteOptions{DryRun: dry}}
		// The client would wait as long as the server asks it to, and try again.
		return p.client.CoreV1().RESTClient().Post().MaxRetries(0).Namespace("default").Resource("pods").Name(name).
			SubResource("eviction").Body(eviction).Do(t.Context()).Error()
	}
	budgets := p.client.PolicyV1().PodDisruptionBudgets("default")
	one := intstr.FromInt32(1)
	budget := ok[*policyv1.PodDisruptionBudget](t)(budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}},
	}, create))
	p.made("pending", nil)
	if err := evict("pending"); err != nil {
		t.Errorf("evict a pod that never ran: %v", err)
	}
	p.made("p", nil)
	p.running("p")
	err := evict("p")
	wantError(t, err, "Cannot evict pod as it would violate the pod's disruption budget.")
	if !apierrors.IsTooManyRequests(err) {
		t.Errorf("an unseen budget: %v", err)
	}
	budget.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: budget.Generation, DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1, ExpectedPods: 2}
	ok[*policyv1.PodDisruptionBudget](t)(budgets.UpdateStatus(t.Context(), budget, update))
	if err := evict("p", dryRun...); err != nil {
		t.Error(err)
	}
	after := ok[*policyv1.PodDisruptionBudget](t)(budgets.Get(t.Context(), "b", get))
	if after.Status.DisruptionsAllowed != 1 || p.now("p").DeletionTimestamp != nil {
		t.Errorf("a dry run did something: %+v", after.Status)
	}
	if err := evict("p"); err != nil {
		t.Fatal(err)
	}
	after = ok[*policyv1.PodDisruptionBudget](t)(budgets.Get(t.Context(), "b", get))
	if _, named := after.Status.DisruptedPods["p"]; !named || after.Status.DisruptionsAllowed != 0 {
		t.Errorf("budget after an eviction: %+v", after.Status)
	}
	pod := p.now("p")
	if pod.DeletionTimestamp == nil || pod.Status.Conditions[len(pod.Status.Conditions)-1].Reason != "EvictionByEvictionAPI" {
		t.Errorf("evicted pod: %v, %+v", pod.DeletionTimestamp, pod.Status.Conditions)
	}
	p.made("q", nil)
	p.running("q")
	wantError(t, evict("q"), "Cannot evict pod as it would violate the pod's disruption budget.")
	if err := budgets.Delete(t.Context(), "b", remove); err != nil {
		t.Fatal(err)
	}
	if err := evict("q"); err != nil {
		t.Errorf("without a budget: %v", err)
	}
	p.kill("p")
	p.kill("q")
}

func testSelect(t *testing.T, p pods) {
	p.made("idle", nil)
	p.made("busy", func(pod *corev1.Pod) { pod.Spec.RestartPolicy = corev1.RestartPolicyNever })
	p.running("busy")
	for _, selector := range []fields.Set{
		{"spec.nodeName": "n1"}, {"status.phase": "Running"}, {"status.podIP": "10.244.0.9"}, {"spec.restartPolicy": "Never"},
		{"spec.schedulerName": "default-scheduler", "spec.nodeName": "n1"}, {"metadata.name": "busy"}, {"spec.hostNetwork": "false", "status.phase": "Running"},
	} {
		list := ok[*corev1.PodList](t)(p.List(t.Context(), metav1.ListOptions{FieldSelector: selector.String()}))
		if len(list.Items) != 1 || list.Items[0].Name != "busy" {
			t.Errorf("%s selects %d pods", selector, len(list.Items))
		}
	}
	_, err := p.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.hostname=x"})
	wantError(t, err, "field label not supported: spec.hostname")
	p.kill("idle")
	p.kill("busy")
}

func TestNamespaceLife(t *testing.T) {
	client, _ := start(t, t.TempDir())
	namespaces := client.CoreV1().Namespaces()
	ns := ok[*corev1.Namespace](t)(namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, create))
	want := map[string]string{"kubernetes.io/metadata.name": "n"}
	if ns.Status.Phase != corev1.NamespaceActive || len(ns.Spec.Finalizers) != 1 || ns.Spec.Finalizers[0] != "kubernetes" || !maps.Equal(ns.Labels, want) {
		t.Errorf("new namespace: %+v", ns)
	}
	ns.Spec.Finalizers = nil
	ns = ok[*corev1.Namespace](t)(namespaces.Update(t.Context(), ns, update))
	if len(ns.Spec.Finalizers) != 1 {
		t.Error("an ordinary update took the finalizer away")
	}
	for range 2 { // a second deletion changes nothing
		if err := namespaces.Delete(t.Context(), "n", remove); err != nil {
			t.Fatal(err)
		}
	}
	ns = ok[*corev1.Namespace](t)(namespaces.Get(t.Context(), "n", get))
	if ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil {
		t.Errorf("deleted namespace: %s, %v", ns.Status.Phase, ns.DeletionTimestamp)
	}
	_, err := client.CoreV1().ConfigMaps("n").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, create)
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("create in a namespace that goes: %v", err)
	}
	ns.Spec.Finalizers = nil
	ok[*corev1.Namespace](t)(namespaces.Finalize(t.Context(), ns, update))
	if _, err := namespaces.Get(t.Context(), "n", get); !apierrors.IsNotFound(err) {
		t.Errorf("a finalized namespace is still there: %v", err)
	}
}

func TestNodes(t *testing.T) {
	client, _ := start(t, t.TempDir())
	nodes := client.CoreV1().Nodes()
	node := ok[*corev1.Node](t)(nodes.Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Status:     corev1.NodeStatus{Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}},
	}, create))
	if cpu := node.Status.Allocatable.Cpu(); cpu.Value() != 4 {
		t.Errorf("a node registered with status has %s allocatable", cpu)
	}
	node.Spec.Unschedulable, node.Status.Phase = true, corev1.NodeTerminated
	node = ok[*corev1.Node](t)(nodes.Update(t.Context(), node, update))
	if !node.Spec.Unschedulable || node.Status.Phase != "" {
		t.Errorf("updated: %+v %q", node.Spec, node.Status.Phase)
	}
	list := ok[*corev1.NodeList](t)(nodes.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.unschedulable=true"}))
	if len(list.Items) != 1 {
		t.Errorf("%d unschedulable nodes", len(list.Items))
	}
	// A kubelet patches conditions by type.
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		node = ok[*corev1.Node](t)(nodes.Patch(t.Context(), "n", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"))
	}
	if len(node.Status.Conditions) != 1 || !node.Spec.Unschedulable {
		t.Errorf("patched: %+v", node.Status.Conditions)
	}
}

func TestReplicationControllerScale(t *testing.T) {
	client, _ := start(t, t.TempDir())
	rcs := client.CoreV1().ReplicationControllers("default")
	two := int32(2)
	rc := ok[*corev1.ReplicationController](t)(rcs.Create(t.Context(), &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "rc"},
		Spec: corev1.ReplicationControllerSpec{Replicas: &two, Template: &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox:1"}}}}},
	}, create))
	if rc.Spec.Selector["app"] != "a" || rc.Generation != 1 {
		t.Errorf("selector %v, generation %d", rc.Spec.Selector, rc.Generation)
	}
	scale, err := rcs.GetScale(t.Context(), "rc", get)
	if err != nil || scale.Spec.Replicas != 2 || scale.Status.Selector != "app=a" {
		t.Fatalf("scale: %+v, %v", scale, err)
	}
	scale.Spec.Replicas = 5
	if _, err := rcs.UpdateScale(t.Context(), "rc", scale, update); err != nil {
		t.Fatal(err)
	}
	rc = ok[*corev1.ReplicationController](t)(rcs.Get(t.Context(), "rc", get))
	if *rc.Spec.Replicas != 5 || rc.Generation != 2 {
		t.Errorf("scaled to %d, generation %d", *rc.Spec.Replicas, rc.Generation)
	}
	scale.Spec.Replicas, scale.ResourceVersion = -1, ""
	_, err = rcs.UpdateScale(t.Context(), "rc", scale, update)
	wantError(t, err, "spec.replicas: Invalid value: -1: must be greater than or equal to 0")
}
