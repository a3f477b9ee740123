package apiserver

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

var vessels = schema.GroupVersionResource{Group: "keelson.test", Version: "v1", Resource: "vessels"}

// definitions are what the tests of this file share: a server with "vessels".
type definitions struct {
	*running
	crds *clientset.Clientset
	dyn  dynamic.Interface
	api  dynamic.ResourceInterface // of vessels in the default namespace
}

// TestDefinitions is what definitions of custom resources can say, and what comes of it.
func TestDefinitions(t *testing.T) {
	d := definitions{running: start(t, "")}
	d.crds, d.dyn = clientset.NewForConfigOrDie(d.admin), dynamic.NewForConfigOrDie(d.admin)
	d.api = d.dyn.Resource(vessels).Namespace("default")
	d.define(t, vesselDefinition(t))
	t.Run("defaults and pruning", d.defaultsAndPruning)
	t.Run("validation", d.validation)
	t.Run("status and scale", d.statusAndScale)
	t.Run("columns", d.columns)
	t.Run("selectable fields", d.selectableFields)
	t.Run("apply", d.apply)
	t.Run("ratcheting", d.ratcheting)
	t.Run("conversion", d.conversion)
	t.Run("refused", d.refused)
	t.Run("names", d.names)
	t.Run("counted", d.counted)
	t.Run("short lives", d.shortLives)
	t.Run("deletion", d.deletion) // last: of vessels themselves
}

func vesselDefinition(t *testing.T) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	b, err := os.ReadFile("testdata/vessel-crd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(b, crd); err != nil {
		t.Fatal(err)
	}
	return crd
}

// define makes a definition and waits until all its versions are served.
func (d definitions) define(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	must(t)(d.crds.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), crd, createOptions))
	for _, v := range crd.Spec.Versions {
		gvr := schema.GroupVersionResource{Group: crd.Spec.Group, Version: v.Name, Resource: crd.Spec.Names.Plural}
		eventually(t, crd.Name+" is served", func() bool {
			_, err := d.dyn.Resource(gvr).List(t.Context(), metav1.ListOptions{})
			return err == nil
		})
	}
}

// changeDefinition changes a definition, whatever else is written to it.
func (d definitions) changeDefinition(t *testing.T, name string, change func(*apiextensionsv1.CustomResourceDefinition)) {
	t.Helper()
	api := d.crds.ApiextensionsV1().CustomResourceDefinitions()
	eventually(t, name+" is changed", func() bool {
		crd, err := api.Get(t.Context(), name, getOptions)
		if err != nil {
			t.Fatal(err)
		}
		change(crd)
		_, err = api.Update(t.Context(), crd, updateOptions)
		if err != nil && !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func vessel(name, spec string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(fmt.Appendf(nil, `{"apiVersion":"keelson.test/v1","kind":"Vessel","metadata":{"name":%q},"spec":%s}`, name, spec)); err != nil {
		panic(err)
	}
	return o
}

// valueAt reads a field of an object as JSON.
func valueAt(o *unstructured.Unstructured, path ...string) string {
	v, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	b, _ := json.Marshal(v)
	return string(b)
}

func (d definitions) defaultsAndPruning(t *testing.T) {
	got, err := d.api.Create(t.Context(), vessel("d", `{"masts":3,"nosuch":1,"cargo":{"any":{"thing":1}},"code":"7","flags":[{"place":"bow"}],
		"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"anything":true}}}`), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cargo":{"any":{"thing":1}},"code":"7","flags":[{"color":"white","place":"bow"}],"home":"Kiel","masts":3,"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"anything":true}}}`
	if s := valueAt(got, "spec"); s != want {
		t.Errorf("spec %s\nwant %s", s, want)
	}
	_, err = d.api.Create(t.Context(), vessel("strict", `{"masts":3,"nosuch":1}`), metav1.CreateOptions{FieldValidation: "Strict"})
	if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `unknown field "spec.nosuch"`) {
		t.Errorf("strict: %v", err)
	}
	// A default that comes later holds for what is stored already.
	d.changeDefinition(t, "vessels.keelson.test", func(crd *apiextensionsv1.CustomResourceDefinition) {
		s := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		s.Properties["later"] = apiextensionsv1.JSONSchemaProps{Type: "string", Default: &apiextensionsv1.JSON{Raw: []byte(`"yes"`)}}
	})
	eventually(t, "the new default is read", func() bool {
		o, err := d.api.Get(t.Context(), "d", getOptions)
		return err == nil && valueAt(o, "spec", "later") == `"yes"`
	})
}

func (d definitions) validation(t *testing.T) {
	for spec, want := range map[string]string{
		`{}`: "spec.masts: Required value", `{"masts":8}`: "spec.masts in body should be less than or equal to 7", `{"masts":0}`: "a vessel has masts",
		`{"masts":"1"}`: `spec.masts in body must be of type integer: "string"`, `{"masts":1,"home":"kiel"}`: "should match '^[A-Z]'",
		`{"masts":1,"flags":[{"place":"a"},{"place":"a"}]}`: `Duplicate value: {"place":"a"}`, `{"masts":1,"ports":["a","a"]}`: `Duplicate value: "a"`,
		`{"masts":1,"code":{}}`: "spec.code", `{"masts":1,"pod":{"spec":{}}}`: "spec.pod.apiVersion: Required value",
	} {
		if _, err := d.api.Create(t.Context(), vessel("bad", spec), createOptions); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", spec, err, want)
		}
	}
	got, err := d.api.Create(t.Context(), vessel("named", `{"masts":1,"name":"Gorch"}`), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	_ = unstructured.SetNestedField(got.Object, "Fock", "spec", "name")
	_, err = d.api.Update(t.Context(), got, updateOptions)
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.name: Forbidden: a name is for life") {
		t.Errorf("a transition rule: %v", err)
	}
}

func (d definitions) statusAndScale(t *testing.T) {
	o := vessel("s", `{"masts":1,"crew":3}`)
	o.Object["status"] = map[string]any{"crew": int64(9)}
	got, err := d.api.Create(t.Context(), o, createOptions)
	if err != nil || valueAt(got, "status") != "null" || got.GetGeneration() != 1 {
		t.Fatalf("created with status %s, generation %d, %v", valueAt(got, "status"), got.GetGeneration(), err)
	}
	got.Object["status"] = map[string]any{"crew": int64(2), "selector": "app=s"}
	_ = unstructured.SetNestedField(got.Object, int64(5), "spec", "masts")
	got, err = d.api.UpdateStatus(t.Context(), got, updateOptions)
	if err != nil || valueAt(got, "spec", "masts") != "1" || valueAt(got, "status") != `{"crew":2,"seen":true,"selector":"app=s"}` || got.GetGeneration() != 1 {
		t.Fatalf("status update: %v, %v", got, err)
	}
	scale, err := d.api.Get(t.Context(), "s", getOptions, "scale")
	if err != nil || valueAt(scale, "spec", "replicas") != "3" || valueAt(scale, "status") != `{"replicas":2,"selector":"app=s"}` {
		t.Errorf("scale: %v, %v", scale, err)
	}
	must(t)(d.api.Patch(t.Context(), "s", types.MergePatchType, []byte(`{"spec":{"replicas":8}}`), metav1.PatchOptions{}, "scale"))
	got, err = d.api.Get(t.Context(), "s", getOptions)
	if err != nil || valueAt(got, "spec", "crew") != "8" || got.GetGeneration() != 2 {
		t.Errorf("scaled: %v, %v", got, err)
	}
}

func (d definitions) columns(t *testing.T) {
	must(t)(d.api.Create(t.Context(), vessel("c", `{"masts":2}`), createOptions))
	resp := ask(t, d.admin, "/apis/keelson.test/v1/namespaces/default/vessels?fieldSelector=metadata.name%3Dc", "application/json;as=Table;v=v1;g=meta.k8s.io")
	var table metav1.Table
	if err := json.NewDecoder(resp.Body).Decode(&table); err != nil || len(table.Rows) != 1 {
		t.Fatalf("%+v, %v", table, err)
	}
	var names []string
	for _, c := range table.ColumnDefinitions {
		names = append(names, fmt.Sprint(c.Name, c.Priority))
	}
	if got := fmt.Sprint(names, table.Rows[0].Cells[:3]); got != "[Name0 Masts0 Home1 Built0] [c 2 Kiel]" {
		t.Error(got)
	}
}

func (d definitions) selectableFields(t *testing.T) {
	must(t)(d.api.Create(t.Context(), vessel("f1", `{"masts":6,"home":"Bremen"}`), createOptions))
	must(t)(d.api.Create(t.Context(), vessel("f2", `{"masts":5,"home":"Bremen"}`), createOptions))
	for selector, want := range map[string]int{"spec.home=Bremen": 2, "spec.home=Bremen,spec.masts=6": 1, "spec.home=Rostock": 0} {
		if l, err := d.api.List(t.Context(), metav1.ListOptions{FieldSelector: selector}); err != nil || len(l.Items) != want {
			t.Errorf("%s: %v, %v", selector, l, err)
		}
	}
	if _, err := d.api.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.code=7"}); !apierrors.IsBadRequest(err) {
		t.Errorf("a field that is not selectable: %v", err)
	}
	w, err := d.api.Watch(t.Context(), metav1.ListOptions{FieldSelector: "spec.home=Emden"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	must(t)(d.api.Patch(t.Context(), "f1", types.MergePatchType, []byte(`{"spec":{"home":"Emden"}}`), metav1.PatchOptions{}))
	must(t)(d.api.Patch(t.Context(), "f1", types.MergePatchType, []byte(`{"spec":{"home":"Jever"}}`), metav1.PatchOptions{}))
	for _, want := range []watch.EventType{watch.Added, watch.Deleted} {
		if e := <-w.ResultChan(); e.Type != want {
			t.Errorf("%v; want %s", e, want)
		}
	}
}

// Lists by key are merged item by item, each field with its owner.
func (d definitions) apply(t *testing.T) {
	apply := func(manager, spec string, force bool) (*unstructured.Unstructured, error) {
		return d.api.Apply(t.Context(), "a", vessel("a", spec), metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	must(t)(apply("one", `{"masts":1,"flags":[{"place":"bow","color":"red"}]}`, false))
	got, err := apply("two", `{"masts":1,"flags":[{"place":"stern","color":"blue"}]}`, false)
	if err != nil || valueAt(got, "spec", "flags") != `[{"color":"red","place":"bow"},{"color":"blue","place":"stern"}]` {
		t.Errorf("merged: %s, %v", valueAt(got, "spec", "flags"), err)
	}
	if _, err := apply("two", `{"masts":1,"flags":[{"place":"bow","color":"blue"}]}`, false); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `.spec.flags[place="bow"].color`) {
		t.Errorf("conflict: %v", err)
	}
	got, err = apply("one", `{"masts":1}`, false)
	if err != nil || valueAt(got, "spec", "flags") != `[{"color":"blue","place":"stern"}]` {
		t.Errorf("given up: %s, %v", valueAt(got, "spec", "flags"), err)
	}
	for _, bad := range []string{`{"masts":1,"flags":[{"place":"bow"},{"place":"bow"}]}`, `{"masts":1,"nosuch":1}`, `{"masts":1,"flags":{}}`} { // AP35
		if _, err := apply("one", bad, true); !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// What was valid stays writable when the schema becomes stricter, as long as it is not touched: KEP-4008.
func (d definitions) ratcheting(t *testing.T) {
	must(t)(d.api.Create(t.Context(), vessel("old", `{"masts":7,"home":"Hamburg"}`), createOptions))
	d.changeDefinition(t, "vessels.keelson.test", func(crd *apiextensionsv1.CustomResourceDefinition) {
		s := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		home := s.Properties["home"]
		home.MaxLength = ptr(int64(6))
		s.Properties["home"] = home
	})
	eventually(t, "the stricter schema is in force", func() bool {
		_, err := d.api.Create(t.Context(), vessel("new", `{"masts":7,"home":"Hamburg"}`), metav1.CreateOptions{DryRun: []string{"All"}})
		return apierrors.IsInvalid(err)
	})
	must(t)(d.api.Patch(t.Context(), "old", types.MergePatchType, []byte(`{"spec":{"masts":6}}`), metav1.PatchOptions{}))
	if _, err := d.api.Patch(t.Context(), "old", types.MergePatchType, []byte(`{"spec":{"home":"Flensburg"}}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("another invalid value: %v", err)
	}
}

// converter is a conversion webhook between v1 (spec.size) and v2 (spec.length), which can be told to do wrong.
type converter struct {
	*httptest.Server
	wrong atomic.Value // func(*unstructured.Unstructured), or nil
	asked atomic.Int32
}

func newConverter(t *testing.T) *converter {
	c := &converter{}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.asked.Add(1)
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
			return
		}
		answer := &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range review.Request.Objects {
			o := &unstructured.Unstructured{}
			if err := o.UnmarshalJSON(raw.Raw); err != nil {
				t.Error(err)
			}
			from, to := "size", "length"
			if review.Request.DesiredAPIVersion == "keelson.test/v1" {
				from, to = to, from
			}
			if v, ok, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", from); ok {
				unstructured.RemoveNestedField(o.Object, "spec", from)
				_ = unstructured.SetNestedField(o.Object, v, "spec", to)
			}
			o.SetAPIVersion(review.Request.DesiredAPIVersion)
			if wrong, _ := c.wrong.Load().(func(*unstructured.Unstructured)); wrong != nil {
				wrong(o)
			}
			b, _ := o.MarshalJSON()
			answer.ConvertedObjects = append(answer.ConvertedObjects, runtime.RawExtension{Raw: b})
		}
		review.Request, review.Response = nil, answer
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(c.Close)
	return c
}

// rafts is a definition in two versions, v1 stored, with a converter.
func (d definitions) rafts(t *testing.T, group string, c *converter) (v1, v2 dynamic.ResourceInterface) {
	t.Helper()
	version := func(name, field string) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Served: true, Storage: name == "v1",
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
				"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{field: {Type: "integer"}}}}}}}
	}
	url := c.URL + "/convert"
	d.define(t, &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "rafts." + group}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: group, Scope: apiextensionsv1.NamespaceScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "rafts", Kind: "Raft", ListKind: "RaftList", Singular: "raft"},
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{version("v1", "size"), version("v2", "length")},
		Conversion: &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
			ConversionReviewVersions: []string{"v1"}, ClientConfig: &apiextensionsv1.WebhookClientConfig{URL: &url,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})}}},
	}})
	in := func(version string) dynamic.ResourceInterface {
		return d.dyn.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: "rafts"}).Namespace("default")
	}
	return in("v1"), in("v2")
}

func raft(version, name, field string, n int64) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": version, "kind": "Raft", "metadata": map[string]any{"name": name}, "spec": map[string]any{field: n}}}
}

func (d definitions) conversion(t *testing.T) {
	c := newConverter(t)
	v1, v2 := d.rafts(t, "keelson.test", c)
	must(t)(v2.Create(t.Context(), raft("keelson.test/v2", "a", "length", 4), createOptions))
	must(t)(v1.Create(t.Context(), raft("keelson.test/v1", "b", "size", 5), createOptions))
	for api, f := range map[dynamic.ResourceInterface]string{v1: "size", v2: "length"} {
		l, err := api.List(t.Context(), metav1.ListOptions{})
		if err != nil || len(l.Items) != 2 || valueAt(&l.Items[0], "spec", f) != "4" || valueAt(&l.Items[1], "spec", f) != "5" {
			t.Errorf("%s: %v, %v", f, l, err)
		}
	}
	w, err := v2.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	must(t)(v1.Patch(t.Context(), "b", types.MergePatchType, []byte(`{"spec":{"size":6}}`), metav1.PatchOptions{}))
	for e := range w.ResultChan() {
		if e.Type == watch.Modified {
			if o := e.Object.(*unstructured.Unstructured); valueAt(o, "spec", "length") != "6" {
				t.Errorf("watched: %v", o)
			}
			break
		}
	}
}

// TestHostile_AP16: a conversion webhook that lies, hangs or answers without end changes nothing that is stored.
func TestHostile_AP16(t *testing.T) {
	d := definitions{running: start(t, "")}
	d.crds, d.dyn = clientset.NewForConfigOrDie(d.admin), dynamic.NewForConfigOrDie(d.admin)
	c := newConverter(t)
	v1, v2 := d.rafts(t, "hostile.test", c)
	before, err := v1.Create(t.Context(), raft("hostile.test/v1", "a", "size", 4), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	for name, wrong := range map[string]func(*unstructured.Unstructured){
		"name":      func(o *unstructured.Unstructured) { o.SetName("another") },
		"uid":       func(o *unstructured.Unstructured) { o.SetUID("another") },
		"namespace": func(o *unstructured.Unstructured) { o.SetNamespace("kube-system") },
		"version":   func(o *unstructured.Unstructured) { o.SetAPIVersion("v1") },
		"kind":      func(o *unstructured.Unstructured) { o.SetKind("Secret") },
		"100 MB": func(o *unstructured.Unstructured) {
			o.Object["spec"] = map[string]any{"length": strings.Repeat("x", 100<<20)}
		},
		"nothing": func(o *unstructured.Unstructured) {
			o.Object = map[string]any{"kind": "Raft", "apiVersion": o.GetAPIVersion()}
		},
	} {
		c.wrong.Store(wrong)
		if o, err := v2.Get(t.Context(), "a", getOptions); !apierrors.IsInternalError(err) {
			t.Errorf("%s: %v, %.300v; want an internal error", name, o != nil, err)
		}
	}
	c.wrong.Store((func(*unstructured.Unstructured))(nil))
	after, err := v2.Get(t.Context(), "a", getOptions)
	if err != nil || after.GetUID() != before.GetUID() || after.GetResourceVersion() != before.GetResourceVersion() || valueAt(after, "spec", "length") != "4" {
		t.Errorf("afterwards: %v, %v", after, err)
	}
}

// refused are definitions that cannot be served.
func (d definitions) refused(t *testing.T) {
	api := d.crds.ApiextensionsV1().CustomResourceDefinitions()
	for name, c := range map[string]struct {
		change func(*apiextensionsv1.CustomResourceDefinition, *apiextensionsv1.JSONSchemaProps)
		want   string
	}{
		"not structural": {func(_ *apiextensionsv1.CustomResourceDefinition, s *apiextensionsv1.JSONSchemaProps) {
			s.Properties["x"] = apiextensionsv1.JSONSchemaProps{}
		}, "properties[x].type: Required value"},
		"invalid default": {func(_ *apiextensionsv1.CustomResourceDefinition, s *apiextensionsv1.JSONSchemaProps) {
			s.Properties["x"] = apiextensionsv1.JSONSchemaProps{Type: "integer", Default: &apiextensionsv1.JSON{Raw: []byte(`"a"`)}}
		}, "properties[x].default"},
		"rule that does not compile": {func(_ *apiextensionsv1.CustomResourceDefinition, s *apiextensionsv1.JSONSchemaProps) {
			s.XValidations = apiextensionsv1.ValidationRules{{Rule: "self.nosuch"}}
		}, "undefined field 'nosuch'"},
		"selectable fields and a reference": {func(_ *apiextensionsv1.CustomResourceDefinition, s *apiextensionsv1.JSONSchemaProps) {
			s.Ref = ptr("x")
		}, "$ref is not supported"},
		"selectable fields in nothing": {func(crd *apiextensionsv1.CustomResourceDefinition, _ *apiextensionsv1.JSONSchemaProps) {
			v := crd.Spec.Versions[0].DeepCopy()
			v.Schema = &apiextensionsv1.CustomResourceValidation{}
			v.Name, v.Storage = "v2", false
			crd.Spec.Versions = append(crd.Spec.Versions, *v)
		}, "spec.versions[1].schema.openAPIV3Schema: Required value"},
		"name and plural": {func(crd *apiextensionsv1.CustomResourceDefinition, _ *apiextensionsv1.JSONSchemaProps) {
			crd.Spec.Names.Plural = "others"
		}, `must be spec.names.plural+"."+spec.group`},
		"protected group": {func(crd *apiextensionsv1.CustomResourceDefinition, _ *apiextensionsv1.JSONSchemaProps) {
			crd.Name, crd.Spec.Group = "vessels.x.k8s.io", "x.k8s.io"
		}, "api-approved.kubernetes.io"},
		"two stored": {func(crd *apiextensionsv1.CustomResourceDefinition, _ *apiextensionsv1.JSONSchemaProps) {
			v := crd.Spec.Versions[0].DeepCopy()
			v.Name = "v2"
			crd.Spec.Versions = append(crd.Spec.Versions, *v)
		}, "must have exactly one version marked as storage version"},
	} {
		crd := vesselDefinition(t)
		crd.Name, crd.Spec.Group = "vessels.refused.test", "refused.test"
		s := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		c.change(crd, &s)
		crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"] = s
		if _, err := api.Create(t.Context(), crd, createOptions); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
}

// names: a second definition with names that are taken waits until they are free.
func (d definitions) names(t *testing.T) {
	api := d.crds.ApiextensionsV1().CustomResourceDefinitions()
	crd := vesselDefinition(t)
	crd.Name, crd.Spec.Names.Plural = "boats.keelson.test", "boats"
	must(t)(api.Create(t.Context(), crd, createOptions))
	eventually(t, "the conflict is told", func() bool {
		got, err := api.Get(t.Context(), crd.Name, getOptions)
		return err == nil && len(got.Status.Conditions) > 0 && got.Status.Conditions[0].Type == apiextensionsv1.NamesAccepted && got.Status.Conditions[0].Status == apiextensionsv1.ConditionFalse
	})
	if err := api.Delete(t.Context(), crd.Name, deleteOptions); err != nil {
		t.Error(err)
	}
}

// deletion: with a definition go its objects, and what is left when it comes again is nothing.
// counted: what a list of custom resources costs is known by their number, until there are none.
func (d definitions) counted(t *testing.T) {
	must(t)(d.api.Create(t.Context(), vessel("counted", `{"masts":1}`), createOptions))
	all, err := d.api.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := d.count("vessels.keelson.test")
	if err != nil || st.ObjectCount != int64(len(all.Items)) || st.EstimatedAverageObjectSizeBytes == 0 {
		t.Errorf("counted: %+v %v, want %d", st, err, len(all.Items))
	}
	if _, err := d.count("nothing.keelson.test"); err != request.ObjectCountNotFoundErr {
		t.Errorf("a resource that nobody has defined: %v", err)
	}
}

func (d definitions) count(resource string) (storage.Stats, error) {
	d.counts.each.Clear() // what is remembered
	return d.counts.of(resource)
}

// A definition that goes as soon as it is established, before anybody has asked for its objects, goes at once: that its storage is only
// just being made holds up nobody.
func (d definitions) shortLives(t *testing.T) {
	api := d.crds.ApiextensionsV1().CustomResourceDefinitions()
	var names []string
	for i := range 20 {
		crd := vesselDefinition(t)
		one := fmt.Sprintf("gnat%d", i)
		crd.Spec.Names = apiextensionsv1.CustomResourceDefinitionNames{Plural: one + "s", Singular: one, Kind: "Gnat" + one, ListKind: "Gnat" + one + "List"}
		crd.Name = one + "s." + crd.Spec.Group
		names = append(names, crd.Name)
		must(t)(api.Create(t.Context(), crd, createOptions))
		eventually(t, crd.Name+" is established", func() bool {
			now, err := api.Get(t.Context(), crd.Name, getOptions)
			return err == nil && established(now)
		})
		if err := api.Delete(t.Context(), crd.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		eventually(t, name+" is gone", func() bool {
			_, err := api.Get(t.Context(), name, getOptions)
			return apierrors.IsNotFound(err)
		})
	}
}

func (d definitions) deletion(t *testing.T) {
	o := vessel("held", `{"masts":1}`)
	o.SetFinalizers([]string{"keelson.test/hold"})
	must(t)(d.api.Create(t.Context(), o, createOptions))
	api := d.crds.ApiextensionsV1().CustomResourceDefinitions()
	if err := api.Delete(t.Context(), "vessels.keelson.test", deleteOptions); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only what is held is left", func() bool {
		l, err := d.api.List(t.Context(), metav1.ListOptions{})
		return err == nil && len(l.Items) == 1 && l.Items[0].GetDeletionTimestamp() != nil
	})
	if _, err := d.api.Create(t.Context(), vessel("late", `{"masts":1}`), createOptions); !apierrors.IsMethodNotSupported(err) && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		t.Errorf("create while the definition goes: %v", err)
	}
	must(t)(d.api.Patch(t.Context(), "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}))
	eventually(t, "the definition is gone", func() bool {
		_, err := api.Get(t.Context(), "vessels.keelson.test", getOptions)
		return apierrors.IsNotFound(err)
	})
	eventually(t, "nothing is counted any more", func() bool {
		_, err := d.count("vessels.keelson.test")
		return err == request.ObjectCountNotFoundErr
	})
	d.define(t, vesselDefinition(t))
	if l, err := d.api.List(t.Context(), metav1.ListOptions{}); err != nil || len(l.Items) > 0 {
		t.Errorf("what came with the definition again: %v, %v", l, err)
	}
}
