package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
)

var (
	createOptions = metav1.CreateOptions{}
	updateOptions = metav1.UpdateOptions{}
	deleteOptions = metav1.DeleteOptions{}
	getOptions    = metav1.GetOptions{}
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "1"}}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

// must returns a function that takes a call's results, so that a failed call ends the test where it is written.
func must(t testing.TB) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestObjects(t *testing.T) {
	r := start(t, "")
	t.Run("update", func(t *testing.T) { testUpdate(t, r) })
	t.Run("owners", func(t *testing.T) { testOwners(t, r) })
	t.Run("deletion", func(t *testing.T) { testDeletionAnswers(t, r) })
	t.Run("patch", func(t *testing.T) { testPatch(t, r) })
	t.Run("apply", func(t *testing.T) { testApply(t, r) })
	t.Run("pages", func(t *testing.T) { testPages(t, r) })
	t.Run("watch", func(t *testing.T) { testWatch(t, r) })
	t.Run("table", func(t *testing.T) { testTable(t, r) })
	t.Run("dry run", func(t *testing.T) { testDryRun(t, r) })
	t.Run("status", func(t *testing.T) { testStatus(t, r) })
	t.Run("bad field", func(t *testing.T) { testBadField(t, r) })
	t.Run("answers", func(t *testing.T) { testAnswers(t, r) })
	t.Run("events", func(t *testing.T) { testTwoFacesOfEvents(t, r) })
}

func testUpdate(t *testing.T, r *running) {
	maps := r.client.CoreV1().ConfigMaps("default")
	first, err := maps.Create(t.Context(), configMap("u"), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Create(t.Context(), configMap("u"), createOptions); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create: %v; want already exists", err)
	}
	changed := first.DeepCopy()
	changed.Data["a"] = "2"
	second, err := maps.Update(t.Context(), changed, updateOptions)
	if err != nil || second.ResourceVersion == first.ResourceVersion || second.UID != first.UID {
		t.Fatalf("update: %v, %v", second, err)
	}
	if _, err := maps.Update(t.Context(), changed, updateOptions); !apierrors.IsConflict(err) {
		t.Errorf("update with an old resourceVersion: %v; want conflict", err)
	}
	other := types.UID("other")
	if err := maps.Delete(t.Context(), "u", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}); !apierrors.IsConflict(err) {
		t.Errorf("delete with another uid: %v; want conflict", err)
	}
	if err := maps.Delete(t.Context(), "u", deleteOptions); err != nil {
		t.Error(err)
	}
	if _, err := maps.Get(t.Context(), "u", getOptions); !apierrors.IsNotFound(err) {
		t.Errorf("get after delete: %v; want not found", err)
	}
}

// testAnswers: what is the same for all kinds.
func testAnswers(t *testing.T, r *running) {
	maps := r.client.CoreV1().ConfigMaps("default")
	cm := configMap("answers")
	cm.Generation = 5
	made, err := maps.Create(t.Context(), cm, createOptions)
	if err != nil || made.Generation != 5 {
		t.Fatalf("a client's generation of a kind without one: %v, %v; want it kept", made, err)
	}
	made.Labels, made.Finalizers = map[string]string{"a": "*"}, []string{"example.com/f", "x"}
	_, err = maps.Update(t.Context(), made, updateOptions)
	var status *apierrors.StatusError
	if !errors.As(err, &status) || len(status.ErrStatus.Details.Causes) != 2 || status.ErrStatus.Details.Causes[1].Field != "metadata.finalizers[1]" {
		t.Errorf("a bad label and a bad finalizer: %v; want each said once", err)
	}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "answers"}}
	must(t)(r.client.CoreV1().ResourceQuotas("default").Create(t.Context(), quota, createOptions))
	raw, err := r.client.CoreV1().RESTClient().Delete().Namespace("default").Resource("resourcequotas").Name("answers").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(raw), `"kind":"ResourceQuota"`) {
		t.Errorf("a deleted quota is answered with %s, %v; want the object", raw, err)
	}
	rules := r.client.ResourceV1().DeviceTaintRules()
	rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "answers"}, Spec: resourcev1.DeviceTaintRuleSpec{Taint: resourcev1.DeviceTaint{Key: "k", Effect: "None"}}}
	must(t)(rules.Create(t.Context(), rule, createOptions))
	if _, err := rules.Update(t.Context(), rule, updateOptions); !apierrors.IsInvalid(err) {
		t.Errorf("a taint rule is put with no version: %v; want it required", err)
	}
	raw, err = r.client.ResourceV1().RESTClient().Delete().Resource("devicetaintrules").Name("answers").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(raw), `"status":"Success"`) {
		t.Errorf("a deleted taint rule is answered with %s, %v; want no object", raw, err)
	}
}

func testPatch(t *testing.T, r *running) {
	pods := r.client.CoreV1().Pods("default")
	must(t)(pods.Create(t.Context(), pod("p"), createOptions))
	for _, c := range []struct {
		typ   types.PatchType
		patch string
		want  func(*corev1.Pod) bool
	}{
		{types.StrategicMergePatchType, `{"spec":{"containers":[{"name":"c","image":"j"}]}}`,
			func(p *corev1.Pod) bool { return len(p.Spec.Containers) == 1 && p.Spec.Containers[0].Image == "j" }},
		{types.MergePatchType, `{"metadata":{"labels":{"x":"y"}}}`, func(p *corev1.Pod) bool { return p.Labels["x"] == "y" }},
		{types.JSONPatchType, `[{"op":"remove","path":"/metadata/labels/x"}]`, func(p *corev1.Pod) bool { return len(p.Labels) == 0 }},
	} {
		p, err := pods.Patch(t.Context(), "p", c.typ, []byte(c.patch), metav1.PatchOptions{})
		if err != nil || !c.want(p) {
			t.Errorf("%s %s: %v, %v", c.typ, c.patch, p, err)
		}
	}
	_, err := pods.Patch(t.Context(), "p", types.MergePatchType, []byte(`{"spec":{"containers":[]}}`), metav1.PatchOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.containers") {
		t.Errorf("patch to no containers: %v; want invalid, with the path", err)
	}
}

func testApply(t *testing.T, r *running) {
	maps := r.client.CoreV1().ConfigMaps("default")
	apply := func(value, manager string, force bool) (*corev1.ConfigMap, error) {
		return maps.Apply(t.Context(), corev1apply.ConfigMap("s", "default").WithData(map[string]string{"k": value}),
			metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	first, err := apply("1", "one", false)
	if err != nil {
		t.Fatal(err)
	}
	same, err := apply("1", "one", false)
	if err != nil || same.ResourceVersion != first.ResourceVersion {
		t.Errorf("applying the same again wrote: %v -> %v, %v", first.ResourceVersion, same.ResourceVersion, err)
	}
	if _, err := apply("2", "two", false); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), ".data.k") {
		t.Errorf("another manager's value: %v; want a conflict that names .data.k", err)
	}
	forced, err := apply("2", "two", true)
	if err != nil || forced.Data["k"] != "2" {
		t.Errorf("forced: %v, %v", forced, err)
	}
}

func testPages(t *testing.T, r *running) {
	must(t)(r.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "pages"}}, createOptions))
	maps := r.client.CoreV1().ConfigMaps("pages")
	const n = 5
	for i := range n {
		must(t)(maps.Create(t.Context(), configMap(fmt.Sprintf("m%d", i)), createOptions))
	}
	var names []string
	opts := metav1.ListOptions{Limit: 2}
	for page := 0; ; page++ {
		l, err := maps.List(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if page == 0 && (l.RemainingItemCount == nil || *l.RemainingItemCount != n-2) {
			t.Errorf("remaining after the first page: %v; want %d", l.RemainingItemCount, n-2)
		}
		for _, m := range l.Items {
			names = append(names, m.Name)
		}
		if opts.Continue = l.Continue; opts.Continue == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "m0 m1 m2 m3 m4" {
		t.Errorf("pages yield %q", got)
	}
	if _, err := maps.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: "forged"}); !apierrors.IsBadRequest(err) {
		t.Errorf("forged continue token: %v; want bad request", err)
	}
}

func testWatch(t *testing.T, r *running) {
	maps := r.client.CoreV1().ConfigMaps("default")
	list, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := maps.Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion, FieldSelector: "metadata.name=w"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	must(t)(maps.Create(t.Context(), configMap("other"), createOptions))
	must(t)(maps.Create(t.Context(), configMap("w"), createOptions))
	must(t)(maps.Patch(t.Context(), "w", types.MergePatchType, []byte(`{"data":{"b":"2"}}`), metav1.PatchOptions{}))
	if err := maps.Delete(t.Context(), "w", deleteOptions); err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		e := <-w.ResultChan()
		if m, ok := e.Object.(*corev1.ConfigMap); !ok || e.Type != want || m.Name != "w" {
			t.Fatalf("event %v %v; want %v of w", e.Type, e.Object, want)
		}
	}
}

func testTable(t *testing.T, r *running) {
	b, err := r.client.CoreV1().RESTClient().Get().Resource("configmaps").Namespace("pages").
		SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(b, &table); err != nil {
		t.Fatal(err)
	}
	var cols []string
	for _, c := range table.ColumnDefinitions {
		cols = append(cols, c.Name)
	}
	if got := strings.Join(cols, " "); got != "Name Data Age" || len(table.Rows) != 5 || len(table.Rows[0].Cells) != 3 {
		t.Errorf("columns %q, %d rows", got, len(table.Rows))
	}
}

func testDryRun(t *testing.T, r *running) {
	maps := r.client.CoreV1().ConfigMaps("default")
	must(t)(maps.Create(t.Context(), configMap("dry"), metav1.CreateOptions{DryRun: []string{"All"}}))
	if _, err := maps.Get(t.Context(), "dry", getOptions); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run stored: %v", err)
	}
}

// The spec's writer cannot touch status, nor the status's writer the spec.
func testStatus(t *testing.T, r *running) {
	pods := r.client.CoreV1().Pods("default")
	p := pod("status")
	p.Status.Message = "mine"
	made, err := pods.Create(t.Context(), p, createOptions)
	if err != nil || made.Status.Message != "" {
		t.Fatalf("status on create: %q, %v; want it dropped", made.Status.Message, err)
	}
	made.Spec.Containers[0].Image = "other"
	made.Status.Message = "kubelet's"
	got, err := pods.UpdateStatus(t.Context(), made, updateOptions)
	if err != nil || got.Status.Message != "kubelet's" || got.Spec.Containers[0].Image != "i" {
		t.Errorf("status update: %q %q, %v", got.Status.Message, got.Spec.Containers[0].Image, err)
	}
}

func testBadField(t *testing.T, r *running) {
	body := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad"},"spec":{"containers":[{"name":"c","imagee":"i"}]}}`
	err := r.client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Param("fieldValidation", "Strict").
		SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error()
	if err == nil || !strings.Contains(err.Error(), `unknown field "spec.containers[0].imagee"`) {
		t.Errorf("unknown field: %v", err)
	}
}

// An Event is one object with two faces.
func testTwoFacesOfEvents(t *testing.T, r *running) {
	must(t)(r.client.CoreV1().Events("default").Create(t.Context(), &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e"}, InvolvedObject: corev1.ObjectReference{Namespace: "default", Name: "x", Kind: "Pod"},
		Reason: "R", Message: "m", Type: "Normal",
	}, createOptions))
	e, err := r.client.EventsV1().Events("default").Get(t.Context(), "e", getOptions)
	if err != nil || e.Note != "m" || e.Regarding.Name != "x" {
		t.Errorf("as events.k8s.io: %v, %v", e, err)
	}
}

func secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"k": []byte("v")}}
}

// testOwners: who may write a status may say who owns the object, except for pods, whose old kubelets did not know better.
func testOwners(t *testing.T, r *running) {
	ctx := t.Context()
	owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "o", UID: "u"}}
	quotas := r.client.CoreV1().ResourceQuotas("default")
	q, err := quotas.Create(ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "owned"}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	q.OwnerReferences = owner
	if got, err := quotas.UpdateStatus(ctx, q, updateOptions); err != nil || len(got.OwnerReferences) != 1 {
		t.Errorf("a quota's owners after a status update: %v, %v", got.OwnerReferences, err)
	}
	p, err := r.client.CoreV1().Pods("default").Create(ctx, pod("owned"), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	p.OwnerReferences = owner
	if got, err := r.client.CoreV1().Pods("default").UpdateStatus(ctx, p, updateOptions); err != nil || len(got.OwnerReferences) != 0 {
		t.Errorf("a pod's owners after a status update: %v, %v", got.OwnerReferences, err)
	}
}

// testDeletionAnswers: a deletion is answered with the object, or with a bare success, as upstream's is.
func testDeletionAnswers(t *testing.T, r *running) {
	ctx := t.Context()
	must(t)(r.client.ResourceV1().DeviceTaintRules().Create(ctx, &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"},
		Spec: resourcev1.DeviceTaintRuleSpec{Taint: resourcev1.DeviceTaint{Key: "a", Effect: resourcev1.DeviceTaintEffectNoSchedule}}}, createOptions))
	must(t)(r.client.ResourceV1().DeviceClasses().Create(ctx, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, createOptions))
	must(t)(r.client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Provisioner: "p"}, createOptions))
	for path, want := range map[string]string{
		"/apis/resource.k8s.io/v1/devicetaintrules/r": "Status", "/apis/resource.k8s.io/v1/deviceclasses/c": "DeviceClass",
		"/apis/storage.k8s.io/v1/storageclasses/s": "StorageClass",
	} {
		got := &metav1.PartialObjectMetadata{}
		raw, err := r.client.CoreV1().RESTClient().Delete().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(ctx)
		if err == nil {
			err = json.Unmarshal(raw, got)
		}
		if err != nil || got.Kind != want {
			t.Errorf("deletion of %s is answered with a %s, %v; want a %s", path, got.Kind, err, want)
		}
	}
}
