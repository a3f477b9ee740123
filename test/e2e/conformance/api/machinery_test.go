package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"keelson.dev/keelson/test/lab/labtest"
)

// served are the kinds that every discovery document must have.
var served = map[string]string{"": "namespaces", "admissionregistration.k8s.io/v1": "validatingwebhookconfigurations", "apiextensions.k8s.io/v1": "customresourcedefinitions",
	"apiregistration.k8s.io/v1": "apiservices", "apps/v1": "deployments", "authentication.k8s.io/v1": "tokenreviews", "authorization.k8s.io/v1": "selfsubjectaccessreviews",
	"autoscaling/v1": "horizontalpodautoscalers", "autoscaling/v2": "horizontalpodautoscalers", "batch/v1": "jobs", "certificates.k8s.io/v1": "certificatesigningrequests",
	"coordination.k8s.io/v1": "leases", "discovery.k8s.io/v1": "endpointslices", "events.k8s.io/v1": "events", "networking.k8s.io/v1": "ingresses", "node.k8s.io/v1": "runtimeclasses",
	"policy/v1": "poddisruptionbudgets", "scheduling.k8s.io/v1": "priorityclasses", "storage.k8s.io/v1": "csinodes"}

// Each group has its preferred version among its versions, each version says what it is and has its resources, and the aggregated
// document has them too, those of a CRD as soon as it is served.
//
// Upstream's titles: should validate PreferredVersion for each APIGroup; should locate the groupVersion and a resource within each
// APIGroup; should support raw aggregated discovery endpoint Accept headers; ... request for CRDs; ... aggregated discovery interface;
// ... for CRDs; server version should find the server version.
func TestDiscovery(t *testing.T) {
	a := cluster(t)
	rest := a.Discovery().RESTClient()
	groups := &metav1.APIGroupList{}
	if err := rest.Get().AbsPath("/apis/").Do(ctx).Into(groups); err != nil || len(groups.Groups) == 0 {
		t.Fatal(groups, err)
	}
	for _, g := range groups.Groups {
		group, match := &metav1.APIGroup{}, false
		if strings.HasSuffix(g.Name, ".example.com") {
			continue // of tests beside this one: may be gone
		}
		if err := rest.Get().AbsPath("/apis/" + g.Name + "/").Do(ctx).Into(group); err != nil {
			t.Fatal(g.Name, err)
		}
		for _, v := range group.Versions {
			match = match || v.GroupVersion == group.PreferredVersion.GroupVersion
		}
		if !match {
			t.Errorf("%s prefers %v of %v", g.Name, group.PreferredVersion, group.Versions)
		}
	}
	for version, resource := range served {
		path, want := "/apis/"+version, version
		if version == "" {
			path, want = "/api/v1", "v1"
		}
		list := &metav1.APIResourceList{}
		if err := rest.Get().AbsPath(path).Do(ctx).Into(list); err != nil || list.GroupVersion != want {
			t.Errorf("%s: %q %v", path, list.GroupVersion, err)
		}
		found := false
		for _, r := range list.APIResources {
			found = found || r.Name == resource
		}
		if !found {
			t.Errorf("%s has no %s", path, resource)
		}
	}
	d, _ := a.crd(t, "discovered.example.com", "Found", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", anything)})
	labtest.Eventually(t, "aggregated discovery", func() string {
		have := map[string]bool{}
		for _, path := range []string{"/api", "/apis"} {
			var list apidiscovery.APIGroupDiscoveryList
			raw := must(rest.Get().AbsPath(path).SetHeader("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").Do(ctx).Raw())(t)
			if err := json.Unmarshal(raw, &list); err != nil {
				t.Fatal(err)
			}
			for _, g := range list.Items {
				for _, v := range g.Versions {
					for _, r := range v.Resources {
						have[schema.GroupVersion{Group: g.Name, Version: v.Version}.String()+" "+r.Resource] = true
					}
				}
			}
		}
		groups, byVersion, _, err := a.Clientset.DiscoveryClient.GroupsAndMaybeResources()
		if err != nil || len(groups.Groups) == 0 {
			return fmt.Sprint("the client: ", groups, err)
		}
		expected := map[string]string{d.Spec.Group + "/v1": d.Spec.Names.Plural}
		for v, r := range served {
			expected[v] = r
		}
		for v, r := range expected {
			if v == "" {
				v = "v1"
			}
			gv, _ := schema.ParseGroupVersion(v)
			if !have[v+" "+r] || byVersion[gv] == nil {
				return fmt.Sprint("no ", v, " ", r)
			}
		}
		return ""
	})
	info := must(a.Discovery().ServerVersion())(t)
	if !regexp.MustCompile(`^[1-9]$`).MatchString(info.Major) || !regexp.MustCompile(`^[0-9]+$`).MatchString(info.Minor) {
		t.Errorf("version %+v", info)
	}
}

// A typed object with fields that are unknown or come twice is refused, and all of them are named.
//
// Upstream's titles: FieldValidation should detect unknown and duplicate fields of a typed object; ... unknown metadata fields of a typed object.
func TestFieldValidationOfTypes(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "fields")
	for meta, c := range map[string]struct{ spec, says string }{
		`"name": "d"`:                       {`"unknownField": "foo", "replicas": 2, "replicas": 3,`, `strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas"`},
		`"name": "d", "unknownMeta": "foo"`: {``, `strict decoding error: unknown field "metadata.unknownMeta"`},
	} {
		body := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{` + meta + `},"spec":{` + c.spec + `"selector":{"matchLabels":{"app":"x"}},"template":{"metadata":{"labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
		err := a.CoreV1().RESTClient().Post().AbsPath("/apis/apps/v1").Namespace(ns).Resource("deployments").Param("fieldManager", "m").Param("fieldValidation", "Strict").Body([]byte(body)).Do(ctx).Error()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %s", err, c.says)
		}
	}
}

const cronSpec = `
  spec:
    type: object
    PRESERVE
    properties:
      template: {type: object, x-kubernetes-embedded-resource: true, properties: {metadata: {type: object, properties: {name: {type: string}}}, spec: {type: object}}}
      foo: {type: string}
      cronSpec: {type: string, pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'}
      ports:
        type: array
        x-kubernetes-list-map-keys: [containerPort, protocol]
        x-kubernetes-list-type: map
        items: {type: object, required: [containerPort, protocol], properties: {containerPort: {format: int32, type: integer}, hostIP: {type: string}, hostPort: {format: int32, type: integer}, name: {type: string}, protocol: {type: string}}}`

// An apply of a custom object is held against its schema: valid is taken, unknown is refused where the schema does not preserve it,
// metadata everywhere, and what comes twice is named with its line.
//
// Upstream's titles: FieldValidation should create/apply a valid CR for CRD with validation schema; ... a CR with unknown fields for CRD
// with no validation schema; ... an invalid CR with extra properties; should detect unknown metadata fields in both the root and embedded
// object of a CR; should detect duplicates in a CR when preserving unknown fields.
func TestFieldValidationOfCustomObjects(t *testing.T) {
	a := cluster(t)
	typed := "type: object\nproperties:" + cronSpec
	const ports = "\n  cronSpec: \"* * * * */5\"\n  ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP"
	for name, c := range map[string]struct{ schema, meta, body, says string }{
		"valid":     {strings.Replace(typed, "PRESERVE", "", 1), "", "\nspec:\n  foo: foo1" + ports, ""},
		"untyped":   {anything, "", "\nspec:\n  unknown: uk1" + ports, ""},
		"extra":     {strings.Replace(typed, "PRESERVE", "", 1), "", "\nunknownField: unknown\nspec:\n  foo: foo1" + ports, `.unknownField: field not declared in schema`},
		"metadata":  {strings.Replace(typed, "PRESERVE", "x-kubernetes-preserve-unknown-fields: true", 1), "\n  unknownMeta: unknown", "\nspec:\n  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata:\n        unknownSubMeta: unknown\n        name: subobject\n  foo: foo1" + ports, `.spec.template.metadata.unknownSubMeta: field not declared in schema`},
		"duplicate": {strings.Replace(typed, "PRESERVE", "x-kubernetes-preserve-unknown-fields: true", 1), "", "\nspec:\n  unknown: uk1\n  foo: foo1\n  foo: foo2" + ports, `line 9: key \"foo\" already set in map`},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := a.crd(t, name+".fields.example.com", "Noxu", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1beta1", c.schema)},
				func(d *apiextensionsv1.CustomResourceDefinition) { d.Spec.Scope = apiextensionsv1.ClusterScoped })
			body := fmt.Sprintf("\napiVersion: %s/v1beta1\nkind: Noxu\nmetadata:\n  name: mytest%s%s", d.Spec.Group, c.meta, c.body)
			got, err := a.crds.Discovery().RESTClient().Patch(types.ApplyPatchType).AbsPath("/apis", d.Spec.Group, "v1beta1", "noxus").Name("mytest").
				Param("fieldManager", "m").Param("fieldValidation", "Strict").Body([]byte(body)).DoRaw(ctx)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(string(got), strings.ReplaceAll(c.says, `"`, `\"`)) && !strings.Contains(string(got), c.says)) {
				t.Errorf("%v\n%s\nwant %s", err, got, c.says)
			}
		})
	}
}

// What cannot be a Table says 406, and so does a Table of a version that there never was for a review; lists and objects are Tables.
//
// Upstream's titles: should return a 406 for a backend which does not implement metadata; should return pod details; should return generic
// metadata details across all namespaces for nodes; should return chunks of table results.
func TestTables(t *testing.T) {
	a := cluster(t)
	const accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
	review := []byte(`{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"nonResourceAttributes":{"path":"/","verb":"get"}}}`)
	err := a.AuthorizationV1().RESTClient().Post().Resource("selfsubjectaccessreviews").SetHeader("Accept", accept).SetHeader("Content-Type", "application/json").Body(review).Do(ctx).Error()
	if status, isStatus := err.(apierrors.APIStatus); !isStatus || status.Status().Code != http.StatusNotAcceptable {
		t.Errorf("a review as a Table: %v", err)
	}
	table := &metav1.Table{}
	if err := a.CoreV1().RESTClient().Get().Resource("nodes").SetHeader("Accept", accept).Do(ctx).Into(table); err != nil {
		t.Fatal(err)
	}
	if len(table.ColumnDefinitions) < 2 || len(table.Rows) < 1 || len(table.Rows[0].Cells) != len(table.ColumnDefinitions) || table.ColumnDefinitions[0].Name != "Name" {
		t.Errorf("nodes: %+v", table)
	}
	ns := a.namespace(t, "tables")
	for i := range 5 {
		must(a.CoreV1().PodTemplates(ns).Create(ctx, template(i), metav1.CreateOptions{}))(t)
	}
	err = a.CoreV1().RESTClient().Get().Namespace(ns).Resource("podtemplates").VersionedParams(&metav1.ListOptions{Limit: 2}, metav1.ParameterCodec).SetHeader("Accept", accept).Do(ctx).Into(table)
	if err != nil || len(table.Rows) != 2 || table.ResourceVersion == "" || table.Continue == "" {
		t.Fatalf("%v %+v", err, table)
	}
	rest := metav1.ListOptions{Continue: table.Continue}
	table = &metav1.Table{}
	err = a.CoreV1().RESTClient().Get().Namespace(ns).Resource("podtemplates").VersionedParams(&rest, metav1.ParameterCodec).SetHeader("Accept", accept).Do(ctx).Into(table)
	if err != nil || len(table.Rows) != 3 || table.Continue != "" {
		t.Errorf("%v %+v", err, table)
	}
}

func template(i int) *corev1.PodTemplate {
	return &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("template-%04d", i)}, Template: corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "x"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}
}

// A list in chunks is of one version, in order, and each chunk says how many remain; without a limit it comes whole.
//
// Upstream's titles: should return chunks of results for list calls; should support continue listing from the last key if the original
// version has been compacted away (the second is controlplane/apiserver's own test: it takes a server whose history is short).
func TestChunks(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "chunks")
	const many = 40
	for i := range many {
		must(a.CoreV1().PodTemplates(ns).Create(ctx, template(i), metav1.CreateOptions{}))(t)
	}
	o, seen, since := metav1.ListOptions{Limit: 17}, 0, ""
	for {
		list := must(a.CoreV1().PodTemplates(ns).List(ctx, o))(t)
		if len(list.Items) > 17 || since != "" && list.ResourceVersion != since {
			t.Errorf("%d items of version %s, before %s", len(list.Items), list.ResourceVersion, since)
		}
		for _, item := range list.Items {
			if want := fmt.Sprintf("template-%04d", seen); item.Name != want {
				t.Errorf("%s, want %s", item.Name, want)
			}
			seen++
		}
		since, o.Continue = list.ResourceVersion, list.Continue
		remaining := int64(many - seen)
		if list.Continue == "" {
			if list.RemainingItemCount != nil {
				t.Errorf("at the end %d remain", *list.RemainingItemCount)
			}
			break
		}
		if list.RemainingItemCount == nil || *list.RemainingItemCount != remaining {
			t.Errorf("remaining %v, want %d", list.RemainingItemCount, remaining)
		}
	}
	if whole := must(a.CoreV1().PodTemplates(ns).List(ctx, metav1.ListOptions{}))(t); seen != many || len(whole.Items) != many {
		t.Errorf("%d in chunks, %d at once", seen, len(whole.Items))
	}
}

// Watches begin at now, at a version, or where the last one ended; an object that leaves a selector is deleted for it, one that comes
// back is added; and all watches see one order.
//
// Upstream's titles: Watchers should observe add, update, and delete watch notifications on configmaps; should be able to start watching
// from a specific resource version; should be able to restart watching from the last resource version observed by the previous watch;
// should observe an object deletion if it stops meeting the requirements of the selector; should receive events on concurrent watches in same order.
func TestWatches(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "watches")
	maps := a.CoreV1().ConfigMaps(ns)
	from := func(version, selector string) watch.Interface {
		w := must(maps.Watch(ctx, metav1.ListOptions{ResourceVersion: version, LabelSelector: selector}))(t)
		t.Cleanup(w.Stop)
		return w
	}
	want := func(w watch.Interface, kind watch.EventType, value string) *corev1.ConfigMap {
		t.Helper()
		e := next(t, w)
		m, isMap := e.Object.(*corev1.ConfigMap)
		if !isMap || e.Type != kind || m.Data["mutation"] != value {
			t.Fatalf("%s %v, want %s of mutation %q", e.Type, e.Object, kind, value)
		}
		return m
	}
	onlyA, both := from("", "watch=a"), from("", "watch in (a,b)")
	m := must(maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m", Labels: map[string]string{"watch": "a"}}}, metav1.CreateOptions{}))(t)
	change := func(value, label string) {
		t.Helper()
		patch := fmt.Sprintf(`{"metadata":{"labels":{"watch":%q}},"data":{"mutation":%q}}`, label, value)
		m = must(maps.Patch(ctx, "m", types.MergePatchType, []byte(patch), metav1.PatchOptions{}))(t)
	}
	change("1", "a")
	first := m.ResourceVersion
	change("2", "a")
	change("3", "b") // leaves the selector
	change("4", "b")
	change("5", "a") // and comes back
	if err := maps.Delete(ctx, "m", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct {
		kind  watch.EventType
		value string
	}{{watch.Added, ""}, {watch.Modified, "1"}, {watch.Modified, "2"}, {watch.Deleted, "2"}, {watch.Added, "5"}, {watch.Deleted, "5"}} {
		got := want(onlyA, e.kind, e.value)
		if e.kind == watch.Deleted && got.ResourceVersion == "" {
			t.Error("deleted without a version")
		}
	}
	var last string
	for _, value := range []string{"", "1", "2", "3", "4", "5"} {
		kind := watch.Modified
		if value == "" {
			kind = watch.Added
		}
		last = want(both, kind, value).ResourceVersion
	}
	want(both, watch.Deleted, "5")
	want(from(last, "watch in (a,b)"), watch.Deleted, "5") // where one ended
	w := from(first, "")
	want(w, watch.Modified, "2")
	want(w, watch.Modified, "3")

	t.Run("order", func(t *testing.T) { watchesAgree(t, a, ns) })
}

// watchesAgree begins a watch at each event of the first: all must go on alike.
func watchesAgree(t *testing.T, a *admin, ns string) {
	maps := a.CoreV1().ConfigMaps(ns)
	since := must(maps.List(ctx, metav1.ListOptions{}))(t).ResourceVersion
	first := must(maps.Watch(ctx, metav1.ListOptions{LabelSelector: "!none", ResourceVersion: since}))(t)
	defer first.Stop()
	end := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // ends with the test
		defer close(stopped)
		for i := 0; ; i++ {
			name := fmt.Sprint("order-", i%5)
			_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			if err != nil && i%3 == 0 {
				_ = maps.Delete(ctx, name, metav1.DeleteOptions{})
			} else if err != nil {
				_, _ = maps.Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"i": fmt.Sprint(i)}}, metav1.UpdateOptions{})
			}
			select {
			case <-end:
				return
			default:
			}
		}
	}()
	defer func() { close(end); <-stopped }()
	var others []watch.Interface
	for i := 0; i < 60; i++ {
		m := next(t, first).Object.(*corev1.ConfigMap)
		for j, w := range others {
			if got := next(t, w).Object.(*corev1.ConfigMap); got.ResourceVersion != m.ResourceVersion {
				t.Fatalf("watch %d at event %d: version %s, the first's %s", j, i, got.ResourceVersion, m.ResourceVersion)
			}
		}
		if len(others) < 30 {
			w := must(maps.Watch(ctx, metav1.ListOptions{LabelSelector: "!none", ResourceVersion: m.ResourceVersion}))(t)
			defer w.Stop()
			others = append(others, w)
		}
	}
}

// A request's timeout is a duration that the server holds to; what is none is refused.
//
// Upstream's titles: Server request timeout should return HTTP status code 400 if the user specifies an invalid timeout in the request URL;
// the request should be served with a default timeout if the specified timeout in the request URL exceeds maximum allowed; health handlers.
func TestTimeoutsAndHealth(t *testing.T) {
	a := cluster(t)
	code := func(path string, params ...string) (code int) {
		r := a.Discovery().RESTClient().Get().AbsPath(path).Timeout(time.Minute)
		for i := 0; i+1 < len(params); i += 2 {
			r = r.Param(params[i], params[i+1])
		}
		r.Do(ctx).StatusCode(&code)
		return code
	}
	plain := func(query string) int {
		var got int
		a.Discovery().RESTClient().Get().RequestURI("/version?" + query).Do(ctx).StatusCode(&got)
		return got
	}
	if got := plain("timeout=invalid"); got != http.StatusBadRequest {
		t.Errorf("an invalid timeout: %d", got)
	}
	if got := plain("timeout=3m"); got != http.StatusOK {
		t.Errorf("a long timeout: %d", got)
	}
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		if got := code(path, "verbose", "1"); got != http.StatusOK {
			t.Errorf("%s: %d", path, got)
		}
		raw := must(a.Discovery().RESTClient().Get().AbsPath(path).Param("verbose", "1").DoRaw(ctx))(t)
		for _, check := range []string{"[+]ping ok", "[+]etcd ok"} {
			if !strings.Contains(string(raw), check) {
				t.Errorf("%s has no %s", path, check)
			}
		}
	}
}
