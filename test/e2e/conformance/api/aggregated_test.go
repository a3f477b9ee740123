package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"

	"keelson.dev/keelson/test/lab/labtest"
)

// A server in a pod serves a group of its own behind the cluster's, knows who asks by the front proxy's certificate and asks the cluster
// whether they may; its APIService is listed, patched, replaced, has a status, and takes the group along when it goes.
//
// Upstream's title: Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator.
func TestAggregatedServer(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "aggregator")
	const group, name = "wardle.example.com", "v1alpha1.wardle.example.com"
	subject := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default", Namespace: ns}}
	must(a.RbacV1().RoleBindings("kube-system").Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: ns}, Subjects: subject,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "extension-apiserver-authentication-reader"}}, metav1.CreateOptions{}))(t)
	must(a.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: ns}, Subjects: subject,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() {
		_ = a.RbacV1().RoleBindings("kube-system").Delete(ctx, ns, metav1.DeleteOptions{})
		_ = a.RbacV1().ClusterRoleBindings().Delete(ctx, ns, metav1.DeleteOptions{})
	})
	s := a.serve(t, ns, "sample-api", 444, "flunders", "--secure-port=444")
	api := must(aggregator.NewForConfig(a.Config))(t).ApiregistrationV1().APIServices()
	labels := map[string]string{"apiservice": ns}
	must(api.Create(ctx, &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: apiregistrationv1.APIServiceSpec{
		Service: &apiregistrationv1.ServiceReference{Namespace: ns, Name: s.name, Port: &s.port}, Group: group, Version: "v1alpha1", CABundle: s.bundle, GroupPriorityMinimum: 2000, VersionPriority: 200}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() { _ = api.Delete(ctx, name, metav1.DeleteOptions{}) })

	rest, path := a.Discovery().RESTClient(), "/apis/"+group+"/v1alpha1/namespaces/default/flunders"
	labtest.Eventually(t, "the server answers", func() string {
		_, err := rest.Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(ctx)
		if err != nil && !apierrors.IsServiceUnavailable(err) && !apierrors.IsNotFound(err) {
			t.Errorf("before it is available: %v", err)
		}
		return complaint(err)
	})
	var code int
	body := `{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"labels":{"sample-label":"true"},"name":"rest-flunder","namespace":"default"}}`
	if result := rest.Post().AbsPath(path).Body([]byte(body)).SetHeader("Accept", "application/json").Do(ctx).StatusCode(&code); result.Error() != nil || code != 201 {
		t.Errorf("create: %d %v", code, result.Error())
	}
	count := func() int {
		var list struct{ Items []any }
		raw := must(rest.Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(ctx))(t)
		if err := json.Unmarshal(raw, &list); err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	if n := count(); n != 1 {
		t.Errorf("%d flunders", n)
	}
	if _, err := rest.Delete().AbsPath(path + "/rest-flunder").DoRaw(ctx); err != nil {
		t.Error(err)
	}
	if n := count(); n != 0 {
		t.Errorf("%d flunders", n)
	}
	gvr := schema.GroupVersionResource{Group: group, Version: "v1alpha1", Resource: "flunders"}
	labtest.Eventually(t, "discovery", func() string {
		resources, err := a.Discovery().ServerPreferredNamespacedResources()
		known := must(discovery.GroupVersionResources(resources))(t)
		if _, ok := known[gvr]; !ok {
			return fmt.Sprint("not among the resources: ", err)
		}
		return ""
	})
	client := a.Dyn.Resource(gvr).Namespace(ns)
	must(client.Create(ctx, &unstructured.Unstructured{Object: map[string]any{"apiVersion": group + "/v1alpha1", "kind": "Flunder", "metadata": map[string]any{"name": "dynamic-flunder"}}}, metav1.CreateOptions{}))(t)
	if list := must(client.List(ctx, metav1.ListOptions{}))(t); len(list.Items) != 1 {
		t.Errorf("%v", list)
	}
	if out := a.kubectl(t, ns, "get", "flunders.wardle.example.com", "-o", "name"); !strings.Contains(out, "flunder.wardle.example.com/dynamic-flunder") {
		t.Error(out)
	}
	if err := client.Delete(ctx, "dynamic-flunder", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	t.Run("service", func(t *testing.T) { a.apiService(t, name, ns, path) })
}

// apiService changes what says where the group is served, and deletes it.
func (a *admin) apiService(t *testing.T, name, ns, path string) {
	api := must(aggregator.NewForConfig(a.Config))(t).ApiregistrationV1().APIServices()
	status := &apiregistrationv1.APIService{}
	raw := must(a.Discovery().RESTClient().Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/"+name+"/status").SetHeader("Accept", "application/json").DoRaw(ctx))(t)
	if err := json.Unmarshal(raw, status); err != nil || len(status.Status.Conditions) == 0 || status.Status.Conditions[0].Message != "all checks passed" {
		t.Errorf("status %v %v", status.Status, err)
	}
	a.kubectl(t, ns, "patch", "apiservice", name, `-p={"spec":{"versionPriority":400}}`)
	if s := must(api.Get(ctx, name, metav1.GetOptions{}))(t); s.Spec.VersionPriority != 400 {
		t.Errorf("priority %d", s.Spec.VersionPriority)
	}
	labtest.Eventually(t, "update", func() string {
		s := must(api.Get(ctx, name, metav1.GetOptions{}))(t)
		s.Labels["updated"] = "yes"
		_, err := api.Update(ctx, s, metav1.UpdateOptions{})
		return complaint(err)
	})
	labtest.Eventually(t, "status update", func() string {
		s := must(api.Get(ctx, name, metav1.GetOptions{}))(t)
		s.Status.Conditions = append(s.Status.Conditions, apiregistrationv1.APIServiceCondition{Type: "StatusUpdated", Status: apiregistrationv1.ConditionTrue, Reason: "E2E", Message: "Set from an e2e test"})
		s, err := api.UpdateStatus(ctx, s, metav1.UpdateOptions{})
		if err == nil && s.Status.Conditions[len(s.Status.Conditions)-1].Reason != "E2E" {
			t.Errorf("status %v", s.Status)
		}
		return complaint(err)
	})
	s := must(api.Patch(ctx, name, types.MergePatchType, []byte(`{"status":{"conditions":[{"type":"StatusPatched","status":"True","reason":"E2E","message":"Set by e2e test"}]}}`), metav1.PatchOptions{}, "status"))(t)
	if len(s.Status.Conditions) != 1 || s.Status.Conditions[0].Type != "StatusPatched" {
		t.Errorf("status %v", s.Status)
	}
	selected := metav1.ListOptions{LabelSelector: "apiservice=" + ns}
	if list := must(api.List(ctx, selected))(t); len(list.Items) != 1 {
		t.Errorf("%d of its label", len(list.Items))
	}
	if err := api.DeleteCollection(ctx, metav1.DeleteOptions{}, selected); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "it goes", func() string {
		if list := must(api.List(ctx, selected))(t); len(list.Items) > 0 {
			return "it is there"
		}
		if _, err := a.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx); !apierrors.IsNotFound(err) {
			return fmt.Sprint("the group is served: ", err)
		}
		return ""
	})
}
