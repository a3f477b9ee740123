package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

const fooSchema = `
description: Foo CRD for Testing
type: object
properties:
  spec:
    type: object
    description: Specification of Foo
    properties:
      bars:
        description: List of Bars and their specs.
        type: array
        items:
          type: object
          required: [name]
          properties:
            name: {description: Name of Bar., type: string}
            age: {description: Age of Bar., type: string}
            feeling: {description: Whether Bar is feeling great., type: string, enum: [Great, Down]}
            bazs: {description: List of Bazs., items: {type: string}, type: array}
  status:
    description: Status of Foo
    type: object
    properties:
      bars: {description: List of Bars and their statuses., type: array, items: {type: object, properties: {name: {type: string}, available: {type: boolean}, quxType: {pattern: in-tree|out-of-tree, type: string}}}}`

const waldoSchema = `{description: Waldo CRD for Testing, type: object, properties: {spec: {description: Specification of Waldo, type: object, properties: {dummy: {description: Dummy property., type: object}}}, status: {description: Status of Waldo, type: object, properties: {bars: {description: List of Bars and their statuses., type: array, items: {type: object}}}}}}`

// kubectl knows a custom kind by what the server publishes: it takes what fits the schema, refuses what does not, and explains it.
//
// Upstream's titles: CustomResourcePublishOpenAPI works for CRD with validation schema; ... without validation schema; ... preserving
// unknown fields at the schema root; ... preserving unknown fields in an embedded object.
func TestKubectlKnowsCustomKinds(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "publish")
	for name, c := range map[string]struct {
		schema    string
		good      string
		explained map[string]string
	}{
		"foo": {fooSchema, `"spec":{"bars":[{"name":"test-bar"}]}`, map[string]string{
			"":           `(?s)DESCRIPTION:.*Foo CRD for Testing.*FIELDS:.*apiVersion.*<string>.*APIVersion defines.*spec.*<Object>.*Specification of Foo`,
			".metadata":  `(?s)DESCRIPTION:.*Standard object's metadata.*FIELDS:.*creationTimestamp.*<string>.*CreationTimestamp is a timestamp`,
			".spec":      `(?s)DESCRIPTION:.*Specification of Foo.*FIELDS:.*bars.*<\[\]Object>.*List of Bars and their specs`,
			".spec.bars": `(?s)(FIELD|RESOURCE):.*bars.*<\[\]Object>.*DESCRIPTION:.*List of Bars and their specs.*FIELDS:.*bazs.*<\[\]string>.*List of Bazs.*name.*<string>.*Name of Bar`}},
		"empty":  {anything, `"a":{"b":[{"c":"d"}]}`, map[string]string{"": `(?s)DESCRIPTION:.*<empty>`}},
		"root":   {`{description: preserve-unknown-properties at root for Testing, type: object, x-kubernetes-preserve-unknown-fields: true, properties: {spec: {type: object, description: Specification of Waldo, properties: {dummy: {type: object}}}}}`, `"a":{"b":[{"c":"d"}]}`, map[string]string{"": `(?s)KIND:.*Root`}},
		"nested": {`{description: preserve-unknown-properties in nested field for Testing, type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {dummy: {type: object}}}}}`, `"spec":{"a":null,"b":[{"c":"d"}]}`, map[string]string{"": `(?s)DESCRIPTION:.*preserve-unknown-properties in nested field for Testing`}},
	} {
		t.Run(name, func(t *testing.T) {
			kind := strings.ToUpper(name[:1]) + name[1:]
			d, _ := a.crd(t, "publish-"+name+".example.com", kind, []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", c.schema)})
			a.published(t, d, "v1", true)
			meta := fmt.Sprintf(`"kind":%q,"apiVersion":"%s/v1","metadata":{"name":"test-cr"}`, kind, d.Spec.Group)
			for _, verb := range []string{"create", "apply"} {
				if out, err := a.kubectlIn(ns, "{"+meta+","+c.good+"}", verb, "-f", "-"); err != nil {
					t.Errorf("%s: %s", verb, out)
				}
				a.kubectl(t, ns, "delete", d.Spec.Names.Plural, "test-cr")
			}
			for path, want := range c.explained {
				if out := a.kubectl(t, ns, "explain", d.Spec.Names.Plural+path); !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("explain %s:\n%s\nwant %s", path, out, want)
				}
			}
			if name != "foo" {
				return
			}
			for bad, says := range map[string]string{`"spec":{"bars":[{"name":"test-bar","feeling":"NonExistentValue"}]}`: `Unsupported value: "NonExistentValue"`,
				`"spec":{"foo":true}`: `unknown field "spec.foo"`, `"spec":{"bars":[{"age":"10"}]}`: `spec.bars[0].name: Required value`} {
				for _, verb := range []string{"create", "apply"} {
					if out, err := a.kubectlIn(ns, "{"+meta+","+bad+"}", verb, "-f", "-"); err == nil || !strings.Contains(out, says) {
						t.Errorf("%s %s: %s, want %s", verb, bad, out, says)
					}
				}
			}
			if out := labtest.Refused(t, shared, "", "explain", d.Spec.Names.Plural+".spec.bars2"); !strings.Contains(out, `field "bars2" does not exist`) {
				t.Errorf("explain what is not: %s", out)
			}
		})
	}
}

// definition is the name of a custom kind in OpenAPI 2: the group turned round.
func definition(d *apiextensionsv1.CustomResourceDefinition, version string) string {
	parts := strings.Split(d.Spec.Group, ".")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, ".") + "." + version + "." + d.Spec.Names.Kind
}

// published waits until a version is in the OpenAPI document, or is not. The document's tag is honoured.
func (a *admin) published(t *testing.T, d *apiextensionsv1.CustomResourceDefinition, version string, want bool) map[string]any {
	t.Helper()
	client := a.Discovery().RESTClient().(*rest.RESTClient).Client
	url := a.Discovery().RESTClient().Get().AbsPath("openapi", "v2").URL().String()
	var etag string
	var doc struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	labtest.Eventually(t, definition(d, version)+" in OpenAPI", func() string {
		request := must(http.NewRequest(http.MethodGet, url, nil))(t)
		if etag != "" {
			request.Header.Set("If-None-Match", `"`+etag+`"`)
		}
		answer := must(client.Do(request))(t)
		defer answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			doc.Definitions = nil
			if err := json.Unmarshal(must(io.ReadAll(answer.Body))(t), &doc); err != nil {
				t.Fatal(err)
			}
			etag = strings.Trim(answer.Header.Get("ETag"), `"`)
		} else if answer.StatusCode != http.StatusNotModified {
			t.Fatal(answer.Status)
		}
		if _, there := doc.Definitions[definition(d, version)]; there != want {
			return fmt.Sprint("there: ", there)
		}
		return ""
	})
	return doc.Definitions[definition(d, version)]
}

// The OpenAPI document follows what CRDs serve: of several groups, versions and kinds; a version renamed; one no longer served; one gone.
//
// Upstream's titles: works for multiple CRDs of different groups; ... of same group but different versions; ... of same group and version but
// different kinds; updates the published spec when one version gets renamed; removes definition from spec when one version gets changed to not be served.
func TestOpenAPIFollowsDefinitions(t *testing.T) {
	a := cluster(t)
	versions := func(schema string, names ...string) (out []apiextensionsv1.CustomResourceDefinitionVersion) {
		for _, n := range names {
			out = append(out, version(t, n, schema))
		}
		return out
	}
	foo, _ := a.crd(t, "openapi-common.example.com", "Foo", versions(fooSchema, "v2", "v3"))
	waldo, _ := a.crd(t, "openapi-common.example.com", "Waldo", versions(waldoSchema, "v3"))
	other, _ := a.crd(t, "openapi-other.example.com", "Other", versions(waldoSchema, "v1beta1"))
	for _, v := range []string{"v2", "v3"} {
		if d := a.published(t, foo, v, true); d["description"] != "Foo CRD for Testing" || d["properties"].(map[string]any)["spec"] == nil || d["x-kubernetes-group-version-kind"] == nil {
			t.Errorf("%s: %v", v, d)
		}
	}
	a.published(t, waldo, "v3", true)
	a.published(t, other, "v1beta1", true)
	api := a.crds.ApiextensionsV1().CustomResourceDefinitions()
	must(api.Patch(ctx, foo.Name, types.JSONPatchType, []byte(`[{"op":"test","path":"/spec/versions/1/name","value":"v3"},{"op":"replace","path":"/spec/versions/1/name","value":"v4"}]`), metav1.PatchOptions{}))(t)
	a.published(t, foo, "v4", true)
	a.published(t, foo, "v3", false)
	a.published(t, foo, "v2", true)
	a.published(t, waldo, "v3", true)
	must(api.Patch(ctx, foo.Name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/versions/1/served","value":false}]`), metav1.PatchOptions{}))(t)
	a.published(t, foo, "v4", false)
	a.published(t, foo, "v2", true)
	if err := api.Delete(ctx, other.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.published(t, other, "v1beta1", false)
}

// Definitions are made, listed, watched, deleted; their status is written apart; their defaults are given to requests and to what was
// stored before.
//
// Upstream's titles: Simple CustomResourceDefinition creating/deleting custom resource definition objects works; listing ...; getting/updating/patching
// custom resource definition status sub-resource works; should include custom resource definition resources in discovery documents;
// custom resource defaulting for requests and from storage works; watch on custom resource definition objects.
func TestDefinitions(t *testing.T) {
	a := cluster(t)
	api := a.crds.ApiextensionsV1().CustomResourceDefinitions()
	labels := map[string]string{"e2e-list-test-uuid": "of-definitions"}
	selected := metav1.ListOptions{LabelSelector: "e2e-list-test-uuid=of-definitions"}
	for i := range 10 {
		a.crd(t, "definitions.example.com", fmt.Sprint("Kind", i), []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", anything)}, func(d *apiextensionsv1.CustomResourceDefinition) { d.Labels = labels })
	}
	if list := must(api.List(ctx, selected))(t); len(list.Items) != 10 {
		t.Errorf("%d definitions", len(list.Items))
	}
	if err := api.DeleteCollection(ctx, metav1.DeleteOptions{}, selected); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "they go", func() string {
		if list := must(api.List(ctx, selected))(t); len(list.Items) > 0 {
			return fmt.Sprint(len(list.Items), " are there")
		}
		return ""
	})

	d, clients := a.crd(t, "defaults.example.com", "Default", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", `{type: object, properties: {a: {type: string}, b: {type: string}}}`)},
		func(d *apiextensionsv1.CustomResourceDefinition) { d.Spec.Scope = apiextensionsv1.ClusterScoped })
	patch := func(what string) {
		t.Helper()
		must(api.Patch(ctx, d.Name, types.JSONPatchType, []byte(what), metav1.PatchOptions{}))(t)
	}
	wants := func(name, a, b string) {
		t.Helper()
		labtest.Eventually(t, "defaults of "+name, func() string {
			o := must(clients[0].Get(ctx, name, metav1.GetOptions{}))(t)
			gotA, _, _ := unstructured.NestedString(o.Object, "a")
			gotB, _, _ := unstructured.NestedString(o.Object, "b")
			if gotA != a || gotB != b {
				return fmt.Sprintf("a=%q b=%q, want %q %q", gotA, gotB, a, b)
			}
			return ""
		})
	}
	const properties = "/spec/versions/0/schema/openAPIV3Schema/properties/"
	must(clients[0].Create(ctx, object(d, "v1", "old", nil), metav1.CreateOptions{}))(t)
	patch(`[{"op":"add","path":"` + properties + `a/default","value":"A"}]`)
	wants("old", "A", "")
	labtest.Eventually(t, "a new object has it", func() string {
		o := must(clients[0].Create(ctx, object(d, "v1", "new", nil), metav1.CreateOptions{}))(t)
		if o.Object["a"] != "A" {
			_ = clients[0].Delete(ctx, "new", metav1.DeleteOptions{})
			return fmt.Sprint(o.Object)
		}
		return ""
	})
	patch(`[{"op":"remove","path":"` + properties + `a/default"},{"op":"add","path":"` + properties + `b/default","value":"B"}]`)
	wants("new", "A", "B")
	wants("old", "", "B")

	condition := apiextensionsv1.CustomResourceDefinitionCondition{Type: "StatusUpdate", Status: apiextensionsv1.ConditionTrue, Reason: "E2E", Message: "Set from e2e test"}
	labtest.Eventually(t, "status update", func() string {
		got := must(api.Get(ctx, d.Name, metav1.GetOptions{}))(t)
		got.Status.Conditions = append(got.Status.Conditions, condition)
		got, err := api.UpdateStatus(ctx, got, metav1.UpdateOptions{})
		if err == nil && got.Status.Conditions[len(got.Status.Conditions)-1].Reason != "E2E" {
			t.Errorf("status %v", got.Status.Conditions)
		}
		return complaint(err)
	})
	got := must(api.Patch(ctx, d.Name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"patchedstatus":"yes"}},"status":{"conditions":[{"type":"StatusPatch","status":"True","reason":"E2E","message":"x","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`), metav1.PatchOptions{}, "status"))(t)
	if len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Type != "StatusPatch" {
		t.Errorf("status patched: %v", got.Status.Conditions)
	}
}

// Objects of a kind are watched with their versions, and a kind's scope, status and scale are what its definition says.
//
// Upstream's titles: CustomResourceDefinition Watch watch on custom resource definition objects; should list and watch custom resources
// matching the field selector; should get a scale of a custom resource (of the CLI); CustomResourceValidationRules (five).
func TestCustomObjects(t *testing.T) {
	a := cluster(t)
	d, clients := a.crd(t, "watched.example.com", "Watched", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", `{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {spec: {type: object, properties: {host: {type: string}, low: {type: integer, maximum: 10}, high: {type: integer}}, x-kubernetes-validations: [{rule: "!has(self.low) || !has(self.high) || self.low < self.high", message: low must be less}]}}}`)},
		func(d *apiextensionsv1.CustomResourceDefinition) {
			d.Spec.Scope = apiextensionsv1.ClusterScoped
			d.Spec.Versions[0].SelectableFields = []apiextensionsv1.SelectableField{{JSONPath: ".spec.host"}}
		})
	client := clients[0]
	w := must(client.Watch(ctx, metav1.ListOptions{ResourceVersion: must(client.List(ctx, metav1.ListOptions{}))(t).GetResourceVersion()}))(t)
	defer w.Stop()
	hosted := must(client.Watch(ctx, metav1.ListOptions{FieldSelector: "spec.host=one"}))(t)
	defer hosted.Stop()
	must(client.Create(ctx, object(d, "v1", "a", map[string]any{"spec": map[string]any{"host": "one"}}), metav1.CreateOptions{}))(t)
	must(client.Create(ctx, object(d, "v1", "b", map[string]any{"spec": map[string]any{"host": "two"}}), metav1.CreateOptions{}))(t)
	if list := must(client.List(ctx, metav1.ListOptions{FieldSelector: "spec.host=one"}))(t); len(list.Items) != 1 || list.Items[0].GetName() != "a" {
		t.Errorf("by field: %v", list.Items)
	}
	must(client.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"host":"two"}}`), metav1.PatchOptions{}))(t)
	if err := client.Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ADDED a", "ADDED b", "MODIFIED a", "DELETED b"} {
		e := next(t, w)
		if got := fmt.Sprint(e.Type, " ", e.Object.(*unstructured.Unstructured).GetName()); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, want := range []watch.EventType{watch.Added, watch.Deleted} {
		if e := next(t, hosted); e.Type != want || e.Object.(*unstructured.Unstructured).GetName() != "a" {
			t.Errorf("%s %v, want %s of a", e.Type, e.Object, want)
		}
	}
	_, err := client.Create(ctx, object(d, "v1", "wrong", map[string]any{"spec": map[string]any{"low": int64(2), "high": int64(1)}}), metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "low must be less") {
		t.Errorf("rule: %v", err)
	}
	// What was wrong before may stay while something else changes.
	must(client.Create(ctx, object(d, "v1", "early", map[string]any{"spec": map[string]any{"low": int64(9)}}), metav1.CreateOptions{}))(t)
	must(a.crds.ApiextensionsV1().CustomResourceDefinitions().Patch(ctx, d.Name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/low/maximum","value":5}]`), metav1.PatchOptions{}))(t)
	labtest.Eventually(t, "the new maximum holds", func() string {
		_, err := client.Create(ctx, object(d, "v1", "late", map[string]any{"spec": map[string]any{"low": int64(9)}}), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsInvalid(err) {
			return ""
		}
		return fmt.Sprint(err)
	})
	must(client.Patch(ctx, "early", types.MergePatchType, []byte(`{"spec":{"high":20}}`), metav1.PatchOptions{}))(t)
	for _, bad := range []string{`self.bad +`, `self.missing > 1`} {
		c := d.DeepCopy()
		c.ObjectMeta, c.Status = metav1.ObjectMeta{Name: "bads.watched.example.com"}, apiextensionsv1.CustomResourceDefinitionStatus{}
		c.Spec.Names = apiextensionsv1.CustomResourceDefinitionNames{Plural: "bads", Singular: "bad", Kind: "Bad", ListKind: "BadList"}
		spec := c.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		spec.XValidations[0].Rule = bad
		c.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"] = spec
		if _, err := a.crds.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, c, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "compilation failed") {
			t.Errorf("rule %q: %v", bad, err)
		}
	}
}

// A converter in a pod turns what is stored in one version into another, also in a list of both.
//
// Upstream's titles: CustomResourceConversionWebhook should be able to convert from CR v1 to CR v2; should be able to convert a non homogeneous list of CRs.
func TestConversion(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "convert")
	s := a.serve(t, ns, "crd-conversion-webhook", 8444, "webhook")
	d, clients := a.crd(t, ns+".example.com", "Converted", []apiextensionsv1.CustomResourceDefinitionVersion{
		version(t, "v1", `{type: object, properties: {hostPort: {type: string}}}`), version(t, "v2", `{type: object, properties: {host: {type: string}, port: {type: string}}}`)},
		func(d *apiextensionsv1.CustomResourceDefinition) {
			d.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
				ConversionReviewVersions: []string{"v1", "v1beta1"}, ClientConfig: &apiextensionsv1.WebhookClientConfig{CABundle: s.bundle,
					Service: &apiextensionsv1.ServiceReference{Namespace: ns, Name: s.name, Path: ptr.To("/crdconvert"), Port: &s.port}}}}
		})
	v1, v2 := clients[0].Namespace(ns), clients[1].Namespace(ns)
	must(v1.Create(ctx, object(d, "v1", "first", map[string]any{"hostPort": "localhost:8080"}), metav1.CreateOptions{}))(t)
	if o := must(v2.Get(ctx, "first", metav1.GetOptions{}))(t); o.Object["host"] != "localhost" || o.Object["port"] != "8080" || o.Object["hostPort"] != nil {
		t.Errorf("as v2: %v", o.Object)
	}
	must(a.crds.ApiextensionsV1().CustomResourceDefinitions().Patch(ctx, d.Name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`), metav1.PatchOptions{}))(t)
	labtest.Eventually(t, "stored as v2", func() string {
		got := must(a.crds.ApiextensionsV1().CustomResourceDefinitions().Get(ctx, d.Name, metav1.GetOptions{}))(t)
		if len(got.Status.StoredVersions) != 2 {
			return fmt.Sprint(got.Status.StoredVersions)
		}
		return ""
	})
	must(v2.Create(ctx, object(d, "v2", "second", map[string]any{"host": "localhost", "port": "8080"}), metav1.CreateOptions{}))(t)
	for client, check := range map[string]func(o map[string]any) bool{
		"v1": func(o map[string]any) bool { return o["hostPort"] == "localhost:8080" && o["host"] == nil },
		"v2": func(o map[string]any) bool {
			return o["host"] == "localhost" && o["port"] == "8080" && o["hostPort"] == nil
		},
	} {
		list := must(map[string]func() (*unstructured.UnstructuredList, error){
			"v1": func() (*unstructured.UnstructuredList, error) { return v1.List(ctx, metav1.ListOptions{}) },
			"v2": func() (*unstructured.UnstructuredList, error) { return v2.List(ctx, metav1.ListOptions{}) }}[client]())(t)
		if len(list.Items) != 2 {
			t.Errorf("%d of %s", len(list.Items), client)
		}
		for _, o := range list.Items {
			if !check(o.Object) || o.GetAPIVersion() != d.Spec.Group+"/"+client {
				t.Errorf("as %s: %v", client, o.Object)
			}
		}
	}
}

// Each document of OpenAPI 3 says what it says also when it was read and written again, by the library that clients use, and there is one
// for each group and version that is served, a custom one among them.
//
// Upstream's titles: OpenAPIV3 should round trip OpenAPI V3 for all built-in group versions; should publish OpenAPI V3 for CustomResourceDefinition.
func TestOpenAPI3(t *testing.T) {
	a := cluster(t)
	d, _ := a.crd(t, "openapi3.example.com", "Third", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", fooSchema)})
	root := openapi3.NewRoot(a.Discovery().OpenAPIV3())
	own := schema.GroupVersion{Group: d.Spec.Group, Version: "v1"}
	labtest.Eventually(t, "the custom kind is published", func() string {
		_, err := root.GVSpec(own)
		return complaint(err)
	})
	versions := must(root.GroupVersions())(t)
	if len(versions) < 20 || !slices.Contains(versions, own) {
		t.Errorf("documents of %v", versions)
	}
	for _, v := range versions {
		if strings.HasSuffix(v.Group, ".example.com") && v != own {
			continue // of a test beside this one: may be gone
		}
		read, before := must(root.GVSpec(v))(t), must(root.GVSpecAsMap(v))(t)
		var after map[string]any
		if err := json.Unmarshal(must(json.Marshal(read))(t), &after); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s is another document when it was read and written again", v)
		}
	}
}
