package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// TestWatches is what informers and kubectl rely on in watches and in lists that go with them.
func TestWatches(t *testing.T) {
	r := start(t, "")
	t.Run("initial events", func(t *testing.T) { testInitialEvents(t, r) })
	t.Run("bookmarks", func(t *testing.T) { testBookmarks(t, r) })
	t.Run("selectors", func(t *testing.T) { testWatchSelectors(t, r) })
	t.Run("protobuf", func(t *testing.T) { testWatchProtobuf(t, r) })
	t.Run("tables", func(t *testing.T) { testWatchTables(t, r) })
	t.Run("metadata", func(t *testing.T) { testWatchMetadata(t, r) })
	t.Run("versions", func(t *testing.T) { testVersions(t, r) })
	t.Run("refusals", func(t *testing.T) { testWatchRefusals(t, r) })
	t.Run("old paths", func(t *testing.T) { testOldWatchPaths(t, r) })
}

// frame is an event as it is on the wire.
type frame struct {
	Type   watch.EventType
	Object json.RawMessage
}

// meta is the metadata of the frame's object.
func (f frame) meta(t *testing.T) metav1.ObjectMeta {
	t.Helper()
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(f.Object, &o); err != nil {
		t.Fatalf("%s: %v", f.Object, err)
	}
	return o.ObjectMeta
}

// watched asks for a watch and returns its frames; it ends with the test.
func watched(t *testing.T, c *rest.Config, path, accept string) func() frame {
	t.Helper()
	resp := ask(t, c, path, accept)
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %d %s", path, resp.StatusCode, b)
	}
	d := json.NewDecoder(resp.Body)
	return func() (f frame) {
		if err := d.Decode(&f); err != nil {
			f.Type, f.Object = "", json.RawMessage(err.Error())
		}
		return f
	}
}

// ask sends a GET; the body is closed at the test's end.
func ask(t *testing.T, c *rest.Config, path, accept string) *http.Response {
	t.Helper()
	rt, err := rest.TransportFor(c)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// filled makes a namespace with ConfigMaps m0, m1, ... and returns its path of them.
func filled(t *testing.T, r *running, ns string, n int) string {
	t.Helper()
	must(t)(r.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, createOptions))
	for i := range n {
		must(t)(r.client.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap(fmt.Sprint("m", i)), createOptions))
	}
	return "/api/v1/namespaces/" + ns + "/configmaps"
}

// A watch can begin with what there is: KEP-3157.
func testInitialEvents(t *testing.T, r *running) {
	path := filled(t, r, "initial", 3)
	for _, rv := range []string{"", "&resourceVersion=0"} {
		next := watched(t, r.admin, path+"?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"+rv, "")
		var names []string
		f := next()
		for ; f.Type == watch.Added; f = next() {
			names = append(names, f.meta(t).Name)
		}
		if !slices.Equal(names, []string{"m0", "m1", "m2"}) && (rv == "" || len(names) > 3) {
			t.Errorf("initial events %v", names)
		}
		if m := f.meta(t); f.Type != watch.Bookmark || m.Annotations[metav1.InitialEventsAnnotationKey] != "true" || m.ResourceVersion == "" {
			t.Errorf("after them: %s %s; want a bookmark that says so", f.Type, f.Object)
		}
		must(t)(r.client.CoreV1().ConfigMaps("initial").Patch(t.Context(), "m1", types.MergePatchType, []byte(`{"data":{"x":"`+rv+`y"}}`), metav1.PatchOptions{}))
		if f := next(); f.Type != watch.Modified || f.meta(t).Name != "m1" {
			t.Errorf("then %s %s", f.Type, f.Object)
		}
	}
	for _, q := range []string{"sendInitialEvents=true", "sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1", "resourceVersionMatch=NotOlderThan",
		"sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x"} {
		if resp := ask(t, r.admin, path+"?watch=1&allowWatchBookmarks=true&"+q, ""); resp.StatusCode != http.StatusUnprocessableEntity && resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", q, resp.Status)
		}
	}
	if resp := ask(t, r.admin, path+"?sendInitialEvents=true", ""); resp.StatusCode/100 != 4 {
		t.Errorf("a list with sendInitialEvents: %s", resp.Status)
	}
}

// A watch that sees nothing still learns how far it is, before it ends at the latest.
func testBookmarks(t *testing.T, r *running) {
	path := filled(t, r, "bookmarks", 1)
	list, err := r.client.CoreV1().ConfigMaps("bookmarks").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	query := "?watch=1&timeoutSeconds=3&fieldSelector=metadata.name%3Dnone&resourceVersion=" + list.ResourceVersion
	next := watched(t, r.admin, path+query+"&allowWatchBookmarks=true", "")
	plain := watched(t, r.admin, path+query, "")
	later, err := r.client.CoreV1().ConfigMaps("bookmarks").Create(t.Context(), configMap("later"), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for f := next(); f.Type != ""; f = next() {
		if f.Type != watch.Bookmark {
			t.Errorf("%s %s", f.Type, f.Object)
		}
		last = f.meta(t).ResourceVersion
	}
	if last != later.ResourceVersion {
		t.Errorf("last bookmark %q; want %s", last, later.ResourceVersion)
	}
	if f := plain(); f.Type != "" {
		t.Errorf("bookmarks that nobody asked for: %s", f.Object)
	}
}

// An object that comes under a selector is added and one that leaves is deleted, whatever happened to it.
func testWatchSelectors(t *testing.T, r *running) {
	path := filled(t, r, "selectors", 1)
	byLabel := watched(t, r.admin, path+"?watch=1&labelSelector=team+in+(red,blue),!old", "")
	maps := r.client.CoreV1().ConfigMaps("selectors")
	patch := func(labels string) {
		must(t)(maps.Patch(t.Context(), "m0", types.MergePatchType, []byte(`{"metadata":{"labels":`+labels+`}}`), metav1.PatchOptions{}))
	}
	patch(`{"team":"red"}`)
	patch(`{"team":"blue"}`)
	patch(`{"old":"yes"}`)
	patch(`{"old":null}`)
	if err := maps.Delete(t.Context(), "m0", deleteOptions); err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted, watch.Added, watch.Deleted} {
		if f := byLabel(); f.Type != want || f.meta(t).Name != "m0" {
			t.Fatalf("%s %s; want %s", f.Type, f.Object, want)
		}
	}
	pods := r.client.CoreV1().Pods("selectors")
	must(t)(r.client.CoreV1().ServiceAccounts("selectors").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, createOptions))
	byField := watched(t, r.admin, "/api/v1/pods?watch=1&fieldSelector=status.phase%3DFailed,metadata.namespace%3Dselectors", "")
	p, err := pods.Create(t.Context(), pod("p"), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	p.Status.Phase = corev1.PodFailed
	must(t)(pods.UpdateStatus(t.Context(), p, updateOptions))
	if f := byField(); f.Type != watch.Added || f.meta(t).Name != "p" {
		t.Errorf("%s %s; want the failed pod", f.Type, f.Object)
	}
}

func testWatchProtobuf(t *testing.T, r *running) {
	filled(t, r, "proto", 1)
	c := rest.CopyConfig(r.admin)
	c.ContentType = "application/vnd.kubernetes.protobuf"
	w, err := r.as(t, c).CoreV1().ConfigMaps("proto").Watch(t.Context(), metav1.ListOptions{SendInitialEvents: ptr(true), AllowWatchBookmarks: true,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*corev1.ConfigMap).Data["a"] != "1" {
		t.Errorf("%v", e)
	}
	if e := <-w.ResultChan(); e.Type != watch.Bookmark || e.Object.(*corev1.ConfigMap).Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("%v", e)
	}
}

func testWatchTables(t *testing.T, r *running) {
	path := filled(t, r, "tables", 2)
	next := watched(t, r.admin, path+"?watch=1&includeObject=Metadata&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", "application/json;as=Table;v=v1;g=meta.k8s.io")
	var columns, rows []int
	for {
		f := next()
		var table metav1.Table
		if err := json.Unmarshal(f.Object, &table); err != nil || table.Kind != "Table" {
			t.Fatalf("%s %s: %v", f.Type, f.Object, err)
		}
		if f.Type == watch.Bookmark {
			break
		}
		columns, rows = append(columns, len(table.ColumnDefinitions)), append(rows, len(table.Rows))
		var m metav1.PartialObjectMetadata
		if len(table.Rows) != 1 || json.Unmarshal(table.Rows[0].Object.Raw, &m) != nil || m.Kind != "PartialObjectMetadata" || m.Namespace != "tables" {
			t.Errorf("row %s", f.Object)
		}
	}
	if fmt.Sprint(columns) != "[3 0]" || fmt.Sprint(rows) != "[1 1]" {
		t.Errorf("columns %v, rows %v; want the columns once and a row in each", columns, rows)
	}
}

func testWatchMetadata(t *testing.T, r *running) {
	filled(t, r, "metadata", 1)
	for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		config := metadata.ConfigFor(r.admin)
		config.ContentType, config.AcceptContentTypes = contentType, contentType
		c, err := metadata.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		w, err := c.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace("metadata").Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		e := <-w.ResultChan()
		if m, ok := e.Object.(*metav1.PartialObjectMetadata); !ok || e.Type != watch.Added || m.Name != "m0" || m.UID == "" {
			t.Errorf("%s: %v %v", contentType, e.Type, e.Object)
		}
		w.Stop()
	}
}

// Which list a resourceVersion and its match select.
func testVersions(t *testing.T, r *running) {
	filled(t, r, "versions", 2)
	maps := r.client.CoreV1().ConfigMaps("versions")
	then, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(t.Context(), "m0", deleteOptions); err != nil {
		t.Fatal(err)
	}
	exact := metav1.ListOptions{ResourceVersion: then.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact}
	for _, limit := range []int64{0, 1} {
		exact.Limit = limit
		if l, err := maps.List(t.Context(), exact); err != nil || len(l.Items)+int(ptrOr(l.RemainingItemCount)) != 2 || l.ResourceVersion != then.ResourceVersion {
			t.Errorf("exactly then, limit %d: %v, %v", limit, l, err)
		}
	}
	for _, o := range []metav1.ListOptions{{}, {ResourceVersion: then.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, Limit: 5}, {Limit: 5}} {
		if l, err := maps.List(t.Context(), o); err != nil || (o.ResourceVersion == "" && len(l.Items) != 1) || len(l.Items) > 2 {
			t.Errorf("%+v: %v, %v", o, l, err)
		}
	}
	for _, path := range []string{"?resourceVersionMatch=NotOlderThan&", "/m1?"} { // asked plainly: the client would try again and again, as it is told to
		resp := ask(t, r.admin, "/api/v1/namespaces/versions/configmaps"+path+"resourceVersion=999999999", "")
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(b), string(metav1.CauseTypeResourceVersionTooLarge)) || resp.Header.Get("Retry-After") == "" {
			t.Errorf("from the future: %s %s", resp.Status, b)
		}
	}
	first, err := maps.List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []metav1.ListOptions{{ResourceVersionMatch: "Exact"}, {ResourceVersionMatch: "Exact", ResourceVersion: "0"}, {ResourceVersionMatch: "Nonsense", ResourceVersion: "1"},
		{ResourceVersionMatch: "NotOlderThan", ResourceVersion: "1", Continue: first.Continue + "x"}} {
		if _, err := maps.List(t.Context(), o); !apierrors.IsInvalid(err) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func ptrOr[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Nobody watches what he may not, or in a form that there is not.
func testWatchRefusals(t *testing.T, r *running) {
	const path = "/api/v1/namespaces/default/configmaps?watch=1"
	for what, c := range map[string]struct {
		config *rest.Config
		accept string
		want   int
	}{
		"a stranger": {r.with(t, "stranger"), "", http.StatusForbidden}, "nobody": {rest.AnonymousClientConfig(r.admin), "", http.StatusUnauthorized},
		"CBOR, as upstream by default": {r.admin, "application/cbor-seq", http.StatusNotAcceptable}, "YAML": {r.admin, "application/yaml", http.StatusNotAcceptable},
	} {
		if resp := ask(t, c.config, path, c.accept); resp.StatusCode != c.want {
			t.Errorf("%s: %s; want %d", what, resp.Status, c.want)
		}
	}
}

// The deprecated paths /watch/... are still there.
func testOldWatchPaths(t *testing.T, r *running) {
	filled(t, r, "paths", 2)
	for path, want := range map[string]string{"/api/v1/watch/namespaces/paths/configmaps/m1": "m1", "/api/v1/watch/namespaces/paths/configmaps": "m0"} {
		if f := watched(t, r.admin, path, "")(); f.Type != watch.Added || f.meta(t).Name != want {
			t.Errorf("%s: %s %s", path, f.Type, f.Object)
		}
	}
}

// TestHistoryEnds: where the past is gone, the server says so (410), and a list that was begun in it can be gone on with.
func TestHistoryEnds(t *testing.T) {
	c := testConfig(t.TempDir())
	c.History = time.Second
	r := startWith(t, c)
	filled(t, r, "past", 5)
	maps := r.client.CoreV1().ConfigMaps("past")
	page, err := maps.List(t.Context(), metav1.ListOptions{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	var gone error
	eventually(t, "the past is gone", func() bool {
		m, err := maps.Get(t.Context(), "m4", getOptions)
		if err != nil {
			t.Fatal(err)
		}
		m.Data["n"] += "x"
		must(t)(maps.Update(t.Context(), m, updateOptions)) // without writes there is no new past
		_, gone = maps.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: page.Continue, ResourceVersion: ""})
		return gone != nil
	})
	status, ok := gone.(apierrors.APIStatus)
	if !ok || !apierrors.IsResourceExpired(gone) || status.Status().Code != http.StatusGone || status.Status().ListMeta.Continue == "" {
		t.Fatalf("the next page: %#v; want 410 with a token", gone)
	}
	rest, err := maps.List(t.Context(), metav1.ListOptions{Continue: status.Status().ListMeta.Continue})
	if err != nil || len(rest.Items) != 3 || rest.Items[0].Name != "m2" || rest.ResourceVersion == page.ResourceVersion {
		t.Errorf("gone on with: %v, %v", rest, err)
	}
	if _, err := maps.List(t.Context(), metav1.ListOptions{ResourceVersion: page.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact}); !apierrors.IsResourceExpired(err) {
		t.Errorf("exactly then: %v", err)
	}
	// A kind without a cache in memory: the database itself is asked.
	f := watched(t, r.admin, "/api/v1/namespaces/past/events?watch=1&resourceVersion="+page.ResourceVersion, "")()
	wantGone(t, "events", f)
	r.stop()
	again := start(t, r.dir)
	f = watched(t, again.admin, "/api/v1/namespaces/past/configmaps?watch=1&resourceVersion="+page.ResourceVersion, "")()
	wantGone(t, "after a restart", f)
}

func wantGone(t *testing.T, what string, f frame) {
	t.Helper()
	var s metav1.Status
	if err := json.NewDecoder(bytes.NewReader(f.Object)).Decode(&s); err != nil || f.Type != watch.Error || s.Code != http.StatusGone || s.Reason != metav1.StatusReasonExpired {
		t.Errorf("%s: %s %s; want 410", what, f.Type, f.Object)
	}
}
