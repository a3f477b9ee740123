package api

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

const (
	agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.57"
	httpd   = "registry.k8s.io/test-webserver:latest"
	busybox = "docker.io/library/busybox:1.28"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, lab.Options{})) }

// ctx is of the whole run: cleanups outlive their tests.
var ctx = context.Background()

// the administrator of the package's server, made once.
var the = sync.OnceValues(newAdmin)

// shared is the package's server: what cluster found.
var shared *lab.Cluster

// admin has one client more than others.
type admin struct {
	*labtest.Admin
	crds *crdclient.Clientset
	once sync.Once // compiles the pods' program
}

func cluster(t *testing.T) *admin {
	t.Helper()
	shared = labtest.Cluster(t)
	a := must(the())(t)
	a.once.Do(func() { labtest.Program(t, "agnhost", agnhost) })
	return a
}

func newAdmin() (*admin, error) {
	a, err := labtest.NewAdmin(shared)
	if err != nil {
		return nil, err
	}
	crds, err := crdclient.NewForConfig(a.Config)
	return &admin{Admin: a, crds: crds}, err
}

// namespace makes a namespace that goes with the test and has its own name as a label.
func (a *admin) namespace(t *testing.T, prefix string) string {
	t.Helper()
	name := prefix + "-" + rand.String(5)
	must(a.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{name: "true"}}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() { _ = a.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}) })
	labtest.Eventually(t, "the namespace's account", func() string {
		_, err := a.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return complaint(err)
	})
	return name
}

// kubectl runs kubectl in a namespace.
func (a *admin) kubectl(t *testing.T, ns string, args ...string) string {
	t.Helper()
	return labtest.Kubectl(t, shared, append([]string{"--namespace=" + ns}, args...)...)
}

// kubectlIn runs kubectl with a manifest and returns what it says and whether it failed.
func (a *admin) kubectlIn(ns, manifest string, args ...string) (string, error) {
	out, errs, err := shared.KubectlIn(ctx, strings.NewReader(manifest), append([]string{"--namespace=" + ns}, args...)...)
	return out + errs, err
}

// crd registers a kind whose versions have the schemas given, the first being what is stored, and waits until each is served.
func (a *admin) crd(t *testing.T, group, kind string, versions []apiextensionsv1.CustomResourceDefinitionVersion, change ...func(*apiextensionsv1.CustomResourceDefinition)) (*apiextensionsv1.CustomResourceDefinition, []dynamic.NamespaceableResourceInterface) {
	t.Helper()
	singular := strings.ToLower(kind)
	d := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: singular + "s." + group}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: group, Scope: apiextensionsv1.NamespaceScoped, Versions: versions,
		Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: singular + "s", Singular: singular, Kind: kind, ListKind: kind + "List"}}}
	for i := range d.Spec.Versions {
		d.Spec.Versions[i].Served, d.Spec.Versions[i].Storage = true, i == 0
	}
	for _, f := range change {
		f(d)
	}
	d = must(a.crds.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, d, metav1.CreateOptions{}))(t)
	t.Cleanup(func() {
		_ = a.crds.ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, d.Name, metav1.DeleteOptions{})
	})
	var clients []dynamic.NamespaceableResourceInterface
	for _, v := range versions {
		client := a.Dyn.Resource(schema.GroupVersionResource{Group: group, Version: v.Name, Resource: d.Spec.Names.Plural})
		labtest.Eventually(t, d.Name+" is served", func() string {
			_, err := client.List(ctx, metav1.ListOptions{})
			return complaint(err)
		})
		clients = append(clients, client)
	}
	return d, clients
}

// version is a version of a CRD whose schema is YAML or JSON.
func version(t *testing.T, name, schemaText string) apiextensionsv1.CustomResourceDefinitionVersion {
	t.Helper()
	props := &apiextensionsv1.JSONSchemaProps{}
	if err := yaml.Unmarshal([]byte(schemaText), props); err != nil {
		t.Fatal(err)
	}
	return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: props}}
}

const anything = `{type: object, x-kubernetes-preserve-unknown-fields: true}`

// object is a custom object with fields beside its metadata.
func object(d *apiextensionsv1.CustomResourceDefinition, version, name string, fields map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	for k, v := range fields {
		o.Object[k] = v
	}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: d.Spec.Group, Version: version, Kind: d.Spec.Names.Kind})
	o.SetName(name)
	return o
}

// must is for calls that may not fail: must(f())(t).
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// complaint is what Eventually wants of an error.
func complaint(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// next returns the next event of a watch, or fails.
func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case e, open := <-w.ResultChan():
		if !open {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(labtest.Patience):
		t.Fatal("no event came")
	}
	return watch.Event{}
}

func readFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), err
}
