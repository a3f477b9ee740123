package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/test/lab/labtest"
)

// kind is a row of the table of lives.
type kind struct {
	resource string // group/version/resource
	cluster  bool   // not in a namespace
	object   string // YAML without apiVersion and metadata; %s is a word that no other object has
	status   string // JSON of a status that may be written, if the kind has one
	named    string // %s is the same word; for kinds whose names follow from what they are
}

// A kind is in the three discovery documents, and its objects are created, read, listed, watched, patched in every way, updated,
// deleted alone and as a collection; its status is read, updated and patched in every way, without the rest following.
//
// Upstream's titles: should support FlowSchema, PriorityLevelConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
// MutatingAdmissionPolicy, CSR, PodCertificateRequest, EndpointSlice, Ingress, IngressClass, NetworkPolicy, ServiceCIDR and IPAddress, RuntimeClass,
// CronJob API operations; StorageClass and VolumeAttributesClass API availability; lease API should be available; should manage the
// lifecycle of a ResourceQuota, Event, ControllerRevision, PodTemplate, CSINode, CSIDriver, CSIStorageCapacity, VolumeAttachment, PersistentVolume.
func TestLifeOfKinds(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "life")
	for _, k := range kinds {
		t.Run(k.resource, func(t *testing.T) {
			t.Parallel()
			a.life(t, ns, k)
		})
	}
}

type life struct {
	*admin
	kind
	ns     string
	t      *testing.T
	gvr    schema.GroupVersionResource
	client dynamic.ResourceInterface
	label  string
}

func (a *admin) life(t *testing.T, ns string, k kind) {
	parts := strings.Split(k.resource, "/")
	l := &life{admin: a, kind: k, ns: ns, t: t, gvr: schema.GroupVersionResource{Group: parts[0], Version: parts[1], Resource: parts[2]}, label: "life=" + rand.String(8)}
	l.client = a.Dyn.Resource(l.gvr)
	if !k.cluster {
		l.client = a.Dyn.Resource(l.gvr).Namespace(ns)
	}
	t.Cleanup(func() {
		_ = l.client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: l.label})
	})
	l.discovered()
	var objects []*unstructured.Unstructured
	for range 3 {
		objects = append(objects, must(l.client.Create(ctx, l.fresh(), metav1.CreateOptions{FieldValidation: "Strict"}))(t))
	}
	last := objects[2]
	read := must(l.client.Get(ctx, last.GetName(), metav1.GetOptions{}))(t)
	if read.GetUID() != last.GetUID() {
		t.Errorf("read %v, made %v", read.GetUID(), last.GetUID())
	}
	list := l.list(3)
	l.changed(last.GetName(), list.GetResourceVersion())
	l.patched(last.GetName())
	if k.status != "" {
		l.statusWritten(last.GetName())
	}
	l.gone(last.GetName())
}

// number is the last of those that names had.
var number atomic.Int32

// fresh is an object that no other is like.
func (l *life) fresh() *unstructured.Unstructured {
	word := rand.String(6)
	o := &unstructured.Unstructured{Object: map[string]any{}}
	fill := strings.NewReplacer("%s", word, "NAMESPACE", l.ns, "NUMBER", fmt.Sprint(number.Add(1)))
	text := fill.Replace(l.object)
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		l.t.Fatal(err)
	}
	o.SetAPIVersion(l.gvr.GroupVersion().String())
	if l.named != "" {
		o.SetName(fill.Replace(l.named))
	} else {
		o.SetGenerateName("life-")
	}
	key, value, _ := strings.Cut(l.label, "=")
	o.SetLabels(map[string]string{key: value})
	return o
}

func (l *life) discovered() {
	t := l.t
	if l.gvr.Group != "" {
		groups := must(l.Discovery().ServerGroups())(t)
		if !slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == l.gvr.Group }) {
			t.Errorf("/apis has no %s", l.gvr.Group)
		}
		group := &metav1.APIGroup{}
		if err := l.Discovery().RESTClient().Get().AbsPath("/apis/" + l.gvr.Group).Do(ctx).Into(group); err != nil {
			t.Error(err)
		}
		if !slices.ContainsFunc(group.Versions, func(v metav1.GroupVersionForDiscovery) bool { return v.Version == l.gvr.Version }) {
			t.Errorf("/apis/%s has no %s", l.gvr.Group, l.gvr.Version)
		}
	}
	resources := must(l.Discovery().ServerResourcesForGroupVersion(l.gvr.GroupVersion().String()))(t)
	want := map[string]bool{l.gvr.Resource: true}
	if l.status != "" {
		want[l.gvr.Resource+"/status"] = true
	}
	for _, r := range resources.APIResources {
		delete(want, r.Name)
	}
	if len(want) > 0 {
		t.Errorf("%s has no %v", resources.GroupVersion, want)
	}
}

func (l *life) list(want int) *unstructured.UnstructuredList {
	l.t.Helper()
	list := must(l.client.List(ctx, metav1.ListOptions{LabelSelector: l.label}))(l.t)
	everywhere := must(l.Dyn.Resource(l.gvr).List(ctx, metav1.ListOptions{LabelSelector: l.label}))(l.t)
	if here, all := living(list), living(everywhere); here != want || all != want {
		l.t.Errorf("%d objects, in all namespaces %d; want %d", here, all, want)
	}
	return list
}

// living counts without those that wait for their finalizers.
func living(list *unstructured.UnstructuredList) (n int) {
	for _, o := range list.Items {
		if o.GetDeletionTimestamp() == nil {
			n++
		}
	}
	return n
}

// changed patches and updates annotations, and sees both by a watch from before.
func (l *life) changed(name, since string) {
	t := l.t
	w := must(l.client.Watch(ctx, metav1.ListOptions{ResourceVersion: since, LabelSelector: l.label}))(t)
	defer w.Stop()
	before := must(l.client.Get(ctx, name, metav1.GetOptions{}))(t)
	patched := must(l.client.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"patched":"true"}}}`), metav1.PatchOptions{}))(t)
	if patched.GetAnnotations()["patched"] != "true" {
		t.Errorf("patched: %v", patched.GetAnnotations())
	}
	if revision(t, before) >= revision(t, patched) {
		t.Errorf("the version went from %s to %s", before.GetResourceVersion(), patched.GetResourceVersion())
	}
	labtest.Eventually(t, "update", func() string {
		o := must(l.client.Get(ctx, name, metav1.GetOptions{}))(t)
		annotations := o.GetAnnotations()
		annotations["updated"] = "true"
		o.SetAnnotations(annotations)
		_, err := l.client.Update(ctx, o, metav1.UpdateOptions{})
		return complaint(err)
	})
	for {
		e := next(t, w)
		o, isObject := e.Object.(*unstructured.Unstructured)
		if e.Type != watch.Modified || !isObject {
			t.Fatalf("event %s of %T", e.Type, e.Object)
		}
		if o.GetAnnotations()["updated"] == "true" {
			return
		}
	}
}

func revision(t *testing.T, o *unstructured.Unstructured) int {
	t.Helper()
	return must(strconv.Atoi(o.GetResourceVersion()))(t)
}

// patched sets a label by each kind of patch.
func (l *life) patched(name string) {
	head := fmt.Sprintf(`"apiVersion":%q,"kind":%q,`, l.gvr.GroupVersion(), must(l.client.Get(ctx, name, metav1.GetOptions{}))(l.t).GetKind())
	for label, p := range map[string]struct {
		how  types.PatchType
		text string
	}{
		"merge":     {types.MergePatchType, `{"metadata":{"labels":{"merge":"yes"}}}`},
		"strategic": {types.StrategicMergePatchType, `{"metadata":{"labels":{"strategic":"yes"}}}`},
		"json":      {types.JSONPatchType, `[{"op":"add","path":"/metadata/labels/json","value":"yes"}]`},
		"apply":     {types.ApplyPatchType, fmt.Sprintf(`{%s"metadata":{"name":%q,"labels":{"apply":"yes"}}}`, head, name)},
	} {
		options := metav1.PatchOptions{FieldValidation: "Strict"}
		if p.how == types.ApplyPatchType {
			options.FieldManager, options.Force = "life", ptr.To(true)
		}
		o, err := l.client.Patch(ctx, name, p.how, []byte(p.text), options)
		if err != nil {
			l.t.Errorf("patch %s: %v", label, err)
		} else if o.GetLabels()[label] != "yes" {
			l.t.Errorf("patch %s: labels %v", label, o.GetLabels())
		}
	}
}

// statusWritten reads the status alone and writes it by PUT and by each kind of patch.
func (l *life) statusWritten(name string) {
	t := l.t
	o := must(l.client.Get(ctx, name, metav1.GetOptions{}, "status"))(t)
	var want map[string]any
	if err := json.Unmarshal([]byte(l.status), &want); err != nil {
		t.Fatal(err)
	}
	has := func(how string, o *unstructured.Unstructured, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("status by %s: %v", how, err)
		} else if got := o.Object["status"]; !covers(got, want) {
			t.Errorf("status by %s: %v, want %v", how, got, want)
		}
	}
	labtest.Eventually(t, "update of the status", func() string {
		o = must(l.client.Get(ctx, name, metav1.GetOptions{}))(t)
		o.Object["status"] = want
		o.SetLabels(nil)
		updated, err := l.client.UpdateStatus(ctx, o, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			return err.Error()
		}
		has("PUT", updated, err)
		return ""
	})
	head := fmt.Sprintf(`"apiVersion":%q,"kind":%q,"metadata":{"name":%q},`, l.gvr.GroupVersion(), o.GetKind(), name)
	for _, p := range []struct {
		how  types.PatchType
		text string
	}{
		{types.MergePatchType, fmt.Sprintf(`{"status":%s}`, l.status)},
		{types.StrategicMergePatchType, fmt.Sprintf(`{"status":%s}`, l.status)},
		{types.JSONPatchType, fmt.Sprintf(`[{"op":"replace","path":"/status","value":%s}]`, l.status)},
		{types.ApplyPatchType, fmt.Sprintf(`{%s"status":%s}`, head, l.status)},
	} {
		options := metav1.PatchOptions{FieldValidation: "Strict"}
		if p.how == types.ApplyPatchType {
			options.FieldManager, options.Force = "life", ptr.To(true)
		}
		updated, err := l.client.Patch(ctx, name, p.how, []byte(p.text), options, "status")
		has(string(p.how), updated, err)
	}
}

// covers tells whether got has everything of want.
func covers(got, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		g, isMap := got.(map[string]any)
		if !isMap {
			return false
		}
		for k, v := range w {
			if !covers(g[k], v) {
				return false
			}
		}
		return true
	case []any:
		g, isList := got.([]any)
		if !isList || len(g) < len(w) {
			return false
		}
		for _, v := range w {
			if !slices.ContainsFunc(g, func(o any) bool { return covers(o, v) }) {
				return false
			}
		}
		return true
	}
	return fmt.Sprint(got) == fmt.Sprint(want)
}

// gone deletes one, then those that have the label.
func (l *life) gone(name string) {
	t := l.t
	if err := l.client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if o, err := l.client.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) && (err != nil || o.GetDeletionTimestamp() == nil || len(o.GetFinalizers()) == 0) {
		t.Errorf("deleted: %v %v", o, err)
	}
	l.list(2)
	if err := l.client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: l.label}); err != nil {
		t.Fatal(err)
	}
	l.list(0)
}
