package core

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	row := func(plural, short, kind string, namespaced bool) resourcetest.Row {
		return resourcetest.Row{Plural: plural, Short: short, Kind: kind, Namespaced: namespaced}
	}
	all := func(r resourcetest.Row) resourcetest.Row { r.Categories = "all"; return r }
	verbs := func(r resourcetest.Row, verbs string) resourcetest.Row { r.Verbs = verbs; return r }
	g := Group()
	if b := resourcetest.Kind(t, g, "Binding"); b.Plural != "bindings" || !b.Namespaced || !slices.Equal(b.Verbs, []string{"create"}) {
		t.Errorf("bindings: %+v", b)
	}
	// Of bindings there is no list, so no list kind.
	g.Kinds = slices.DeleteFunc(g.Kinds, func(k resource.Kind) bool { return k.Kind == "Binding" })
	resourcetest.CheckNames(t, g,
		verbs(row("componentstatuses", "cs", "ComponentStatus", false), "get,list"),
		row("configmaps", "cm", "ConfigMap", true),
		row("endpoints", "ep", "Endpoints", true),
		row("events", "ev", "Event", true),
		row("limitranges", "limits", "LimitRange", true),
		verbs(row("namespaces", "ns", "Namespace", false), "create,delete,get,list,patch,update,watch"),
		row("nodes", "no", "Node", false),
		row("persistentvolumeclaims", "pvc", "PersistentVolumeClaim", true),
		row("persistentvolumes", "pv", "PersistentVolume", false),
		all(row("pods", "po", "Pod", true)),
		row("podtemplates", "", "PodTemplate", true),
		all(row("replicationcontrollers", "rc", "ReplicationController", true)),
		row("resourcequotas", "quota", "ResourceQuota", true),
		row("secrets", "", "Secret", true),
		row("serviceaccounts", "sa", "ServiceAccount", true),
		all(row("services", "svc", "Service", true)))
}

// verdict is an object, made by a merge patch from its kind's base, or an update of it by a further one, and what
// upstream says about it.
type verdict struct {
	Name, Kind     string
	Object, Update json.RawMessage
	Want, Warn     []string
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func merge(t *testing.T, doc []byte, patches ...json.RawMessage) []byte {
	t.Helper()
	for _, patch := range patches {
		if patch == nil {
			continue
		}
		merged, err := jsonpatch.MergePatch(doc, patch)
		if err != nil {
			t.Fatal(err)
		}
		doc = merged
	}
	return doc
}

func decode(t *testing.T, k resource.Kind, text []byte) runtime.Object {
	t.Helper()
	obj := k.New()
	if err := yaml.UnmarshalStrict(text, obj); err != nil {
		t.Fatal(err)
	}
	if k.Default != nil {
		k.Default(obj)
	}
	return obj
}

// The verdicts in testdata are those of Kubernetes 1.37.2 on the same objects.
func TestVerdicts(t *testing.T) {
	bases := map[string]json.RawMessage{}
	readYAML(t, "testdata/bases.yaml", &bases)
	files, err := filepath.Glob("testdata/verdicts/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no verdicts: %v", err)
	}
	ofFile := map[string]string{"pod.yaml": "Pod", "service.yaml": "Service"}
	for _, file := range files {
		var verdicts []verdict
		readYAML(t, file, &verdicts)
		for _, v := range verdicts {
			if v.Kind == "" {
				v.Kind = ofFile[filepath.Base(file)]
			}
			t.Run(v.Kind+"/"+v.Name, func(t *testing.T) { v.check(t, bases[v.Kind]) })
		}
	}
}

func (v verdict) check(t *testing.T, base []byte) {
	k := resourcetest.Kind(t, Group(), v.Kind)
	obj := decode(t, k, merge(t, base, v.Object))
	var errs field.ErrorList
	var old runtime.Object
	if v.Update == nil {
		if k.PrepareForCreate != nil {
			k.PrepareForCreate(t.Context(), obj)
		}
		errs = k.Validate(t.Context(), obj)
	} else {
		old, obj = obj, decode(t, k, merge(t, base, v.Object, v.Update))
		if k.PrepareForUpdate != nil {
			k.PrepareForUpdate(t.Context(), obj, old)
		}
		errs = k.ValidateUpdate(t.Context(), obj, old)
	}
	var got, warn []string
	for _, err := range errs {
		text, _, _ := strings.Cut(err.Error(), "\n") // a difference follows, in the words of a library
		if !slices.Contains(got, text) {
			got = append(got, text)
		}
	}
	if len(errs) == 0 && k.Warnings != nil {
		warn = k.Warnings(t.Context(), obj, old)
	}
	compare(t, "errors", got, v.Want)
	compare(t, "warnings", warn, v.Warn)
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i, text := range want {
		want[i], _, _ = strings.Cut(text, "\n")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s\n got: %s\nwant: %s", what, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}

// line prints an object as `kubectl get -o wide` does: AGE, which is unknown here, before the columns of -o wide.
func line(k resource.Kind, obj runtime.Object) (header, row string) {
	var names, cells []string
	age := func() {
		if !k.NoAge && !slices.Contains(names, "Age") {
			names, cells = append(names, "Age"), append(cells, "<unknown>")
		}
	}
	if !k.NoAge {
		names, cells = []string{"Name"}, []string{"x"}
	}
	for _, c := range k.Columns {
		if c.Priority > 0 && trailing(k.Columns, c.Name) {
			age()
		}
		names, cells = append(names, c.Name), append(cells, fmt.Sprint(c.Value(obj)))
	}
	age()
	return strings.Join(names, " | "), strings.Join(cells, " | ")
}

// trailing says that only wide columns follow.
func trailing(columns []resource.Column, name string) bool {
	i := slices.IndexFunc(columns, func(c resource.Column) bool { return c.Name == name })
	return !slices.ContainsFunc(columns[i:], func(c resource.Column) bool { return c.Priority == 0 })
}

// The rows in testdata are those that Kubernetes 1.37.2 prints.
func TestColumns(t *testing.T) {
	var cases []struct {
		Name, Kind string
		Object     map[string]any
		Row        string
	}
	readYAML(t, "testdata/columns.yaml", &cases)
	for _, c := range cases {
		t.Run(c.Kind+"/"+c.Name, func(t *testing.T) {
			k := resourcetest.Kind(t, Group(), c.Kind)
			text, err := json.Marshal(c.Object)
			if err != nil {
				t.Fatal(err)
			}
			obj := decode(t, k, merge(t, text, json.RawMessage(`{"metadata": {"name": "x"}}`)))
			if _, got := line(k, obj); got != c.Row {
				t.Errorf("got  %s\nwant %s", got, c.Row)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	want := map[string]string{
		"Pod":                   "Name | Ready | Status | Restarts | Age | IP | Node | Nominated Node | Readiness Gates",
		"Node":                  "Name | Status | Roles | Age | Version | Internal-IP | External-IP | OS-Image | Kernel-Version | Container-Runtime",
		"Service":               "Name | Type | Cluster-IP | External-IP | Port(s) | Age | Selector",
		"Namespace":             "Name | Status | Age",
		"ConfigMap":             "Name | Data | Age",
		"Secret":                "Name | Type | Data | Age",
		"ServiceAccount":        "Name | Age",
		"Endpoints":             "Name | Endpoints | Age",
		"Event":                 "Last Seen | Type | Reason | Object | Subobject | Source | Message | First Seen | Count | Name",
		"PersistentVolume":      "Name | Capacity | Access Modes | Reclaim Policy | Status | Claim | StorageClass | VolumeAttributesClass | Reason | Age | VolumeMode",
		"PersistentVolumeClaim": "Name | Status | Volume | Capacity | Access Modes | StorageClass | VolumeAttributesClass | Age | VolumeMode",
		"ReplicationController": "Name | Desired | Current | Ready | Age | Containers | Images | Selector",
		"ResourceQuota":         "Name | Request | Limit | Age",
		"LimitRange":            "Name | Created At",
		"PodTemplate":           "Name | Containers | Images | Pod Labels",
	}
	for _, kind := range slices.Sorted(maps.Keys(want)) {
		k := resourcetest.Kind(t, Group(), kind)
		if got, _ := line(k, k.New()); got != want[kind] {
			t.Errorf("%s\n got: %s\nwant: %s", kind, got, want[kind])
		}
	}
}

// What is printed as time passed is tested where time stands still.
func TestColumnsOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := `{"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": {"phase": "Running", "containerStatuses": [
			{"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "1999-12-31T23:59:55Z"}}},
			{"name": "b", "ready": true, "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "1999-12-31T23:00:00Z"}}}]}}`
		event := `{"metadata": {"name": "x"}, "firstTimestamp": "1999-12-31T23:00:00Z", "lastTimestamp": "1999-12-31T23:50:00Z", "count": 4}`
		series := `{"metadata": {"name": "x"}, "eventTime": "1999-12-31T22:00:00.000000Z", "series": {"count": 9, "lastObservedTime": "1999-12-31T23:59:00.000000Z"}}`
		for _, c := range []struct{ kind, text, want string }{
			{"Pod", pod, "x | 2/2 | Running | 3 (5s ago) | <unknown> | <none> | <none> | <none> | <none>"},
			{"Event", event, "10m |  |  |  |  |  |  | 60m | 4 | x"},
			{"Event", series, "60s |  |  |  |  |  |  | 120m | 9 | x"},
		} {
			k := resourcetest.Kind(t, Group(), c.kind)
			if _, got := line(k, decode(t, k, []byte(c.text))); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		}
	})
}

// The course's manifests become what Kubernetes 1.37.2 makes of them, before addresses are given.
func TestLessons(t *testing.T) {
	files, err := filepath.Glob("testdata/lessons/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no lessons: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			wanted := documents(t, file)
			for _, doc := range documents(t, filepath.Join("../../../test/lessons", filepath.Base(file))) {
				var typ metav1.TypeMeta
				if err := yaml.Unmarshal(doc, &typ); err != nil {
					t.Fatal(err)
				}
				if typ.APIVersion != "v1" {
					continue
				}
				k := resourcetest.Kind(t, Group(), typ.Kind)
				got, want := stored(t, k, doc), k.New()
				if err := yaml.UnmarshalStrict(wanted[0], want); err != nil {
					t.Fatal(err)
				}
				wanted = wanted[1:]
				got.GetObjectKind().SetGroupVersionKind(want.GetObjectKind().GroupVersionKind())
				if d := diff.Diff(want, got); d != "" {
					t.Errorf("%s differs (- want, + got):\n%s", typ.Kind, d)
				}
			}
		})
	}
}

func documents(t *testing.T, file string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(text, []byte("\n---"))
}

// stored is what is stored of a new object, but for what the mechanism and the hooks add.
func stored(t *testing.T, k resource.Kind, text []byte) runtime.Object {
	t.Helper()
	obj := decode(t, k, text)
	if m := obj.(metav1.Object); k.Namespaced && m.GetNamespace() == "" {
		m.SetNamespace("default")
	}
	if k.PrepareForCreate != nil {
		k.PrepareForCreate(t.Context(), obj)
	}
	toValidate := obj
	switch o := obj.(type) {
	case *corev1.Service:
		s := o.DeepCopy()
		normalizeClusterIPs(s, nil)
		toValidate = s
	case *corev1.Pod:
		if o.Generation != 1 {
			t.Errorf("generation %d", o.Generation)
		}
		o.Generation = 0
	case *corev1.PersistentVolume:
		o.Status.LastPhaseTransitionTime = nil
	}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), toValidate))
	return obj
}

func FuzzPod(f *testing.F) {
	var cases []struct{ Object json.RawMessage }
	text, err := os.ReadFile("testdata/verdicts/pod.yaml")
	if err != nil {
		f.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &cases); err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		f.Add([]byte(c.Object), []byte(`{"spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"podIP": "10.0.0.1"}}`))
	}
	kind := podKind()
	f.Fuzz(func(t *testing.T, text, oldText []byte) {
		pod, old := &corev1.Pod{}, &corev1.Pod{}
		if json.Unmarshal(text, pod) != nil || json.Unmarshal(oldText, old) != nil {
			return // what is no pod never gets here
		}
		checkAnyPod(t, kind, pod, old)
	})
}

// checkAnyPod: whatever a client sends nothing panics; defaults are stable; a valid pod stays valid.
func checkAnyPod(t *testing.T, kind resource.Kind, pod, old *corev1.Pod) {
	ctx := context.Background()
	kind.Default(pod)
	kind.Default(old)
	twice := pod.DeepCopy()
	kind.Default(twice)
	if d := diff.Diff(pod, twice); d != "" {
		t.Errorf("defaults change what they set:\n%s", d)
	}
	line(kind, pod)
	kind.Fields(pod)
	for _, rules := range []viewRules[*corev1.Pod]{
		{prepare: preparePodUpdate, validate: func(_ context.Context, p, old *corev1.Pod) field.ErrorList { return validatePodUpdate(p, old) }},
		{prepare: preparePodStatus, validate: func(_ context.Context, p, old *corev1.Pod) field.ErrorList { return validatePodStatusUpdate(p, old) }},
		{prepare: prepareResize, validate: func(_ context.Context, p, old *corev1.Pod) field.ErrorList { return validateResize(p, old) }},
		{prepare: prepareEphemeral, validate: func(_ context.Context, p, old *corev1.Pod) field.ErrorList { return validateEphemeralUpdate(p, old) }},
	} {
		p, o := pod.DeepCopy(), old.DeepCopy()
		rules.prepare(ctx, p, o)
		rules.validate(ctx, p, o)
	}
	kind.PrepareForCreate(ctx, pod)
	errs := kind.Validate(ctx, pod)
	kind.Warnings(ctx, pod, nil)
	if len(errs) > 0 {
		return
	}
	same := pod.DeepCopy()
	kind.Default(same)
	if errs := kind.ValidateUpdate(ctx, same, pod); len(errs) > 0 {
		t.Errorf("a valid pod cannot be written back: %v", errs)
	}
}
