package informer

import (
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// groups are the factory's own methods: the others are of the embedded interface and panic.
var groups = map[string]string{
	"Admissionregistration": "/apis/admissionregistration.k8s.io/v1/", "Apps": "/apis/apps/v1/", "Autoscaling": "/apis/autoscaling/v2/",
	"Batch": "/apis/batch/v1/", "Certificates": "/apis/certificates.k8s.io/v1/", "Coordination": "/apis/coordination.k8s.io/v1/",
	"Core": "/api/v1/", "Discovery": "/apis/discovery.k8s.io/v1/", "Flowcontrol": "/apis/flowcontrol.apiserver.k8s.io/v1/",
	"Networking": "/apis/networking.k8s.io/v1/", "Node": "/apis/node.k8s.io/v1/", "Policy": "/apis/policy/v1/",
	"Rbac": "/apis/rbac.authorization.k8s.io/v1/", "Resource": "/apis/resource.k8s.io/v1/", "Scheduling": "/apis/scheduling.k8s.io/v1/",
	"Storage": "/apis/storage.k8s.io/v1/",
}

// seen are the requests' paths; everything is gone.
type seen chan string

func (s seen) RoundTrip(r *http.Request) (*http.Response, error) {
	s <- r.URL.Path
	return &http.Response{StatusCode: http.StatusGone, Request: r, Header: http.Header{}, Body: http.NoBody}, nil
}

func newFactory(t *testing.T, o Options) (*factory, seen) {
	t.Helper()
	paths := make(seen, 10000)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://none", Transport: paths, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return New(client, o).(*factory), paths
}

// everyKind asks for each informer and returns the paths that they must read.
func everyKind(t *testing.T, f *factory) map[string]bool {
	want := map[string]bool{}
	for group, prefix := range groups {
		version := "V1"
		if group == "Autoscaling" {
			version = "V2"
		}
		v := reflect.ValueOf(f).MethodByName(group).Call(nil)[0].Elem().MethodByName(version).Call(nil)[0].Elem()
		for i := range v.NumMethod() {
			name := v.Type().Method(i).Name
			if group == "Core" && (name == "ComponentStatuses" || name == "Events") {
				continue // not here: the one is deprecated, of the other there are too many
			}
			kind := v.Method(i).Call(nil)[0].Interface().(interface {
				Informer() cache.SharedIndexInformer
			})
			if kind.Informer() != kind.Informer() {
				t.Errorf("%s: two informers of one kind", name)
			}
			want[prefix+strings.ToLower(name)] = true
		}
	}
	if len(f.kinds) != len(want) {
		t.Errorf("%d informers of %d kinds", len(f.kinds), len(want))
	}
	return want
}

// TestEveryKindAsksForItself: a kind under another's name would be an informer of the wrong objects.
func TestEveryKindAsksForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, paths := newFactory(t, Options{})
		want := everyKind(t, f)
		stop := make(chan struct{})
		f.Start(stop)
		got := map[string]bool{}
		for len(got) < len(want) {
			got[<-paths] = true
		}
		if !maps.Equal(got, want) {
			t.Errorf("asked for %v, want %v", got, want)
		}
		close(stop)
		f.Shutdown()
	})
}

func TestNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, paths := newFactory(t, Options{Namespace: "kube-system"})
		generic, err := f.ForResource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
		if err != nil || generic.Informer() != f.Core().V1().ConfigMaps().Informer() {
			t.Fatalf("ConfigMaps by their resource: %v, %v", generic, err)
		}
		stop := make(chan struct{})
		f.Start(stop)
		if got := <-paths; got != "/api/v1/namespaces/kube-system/configmaps" {
			t.Errorf("asked for %s", got)
		}
		close(stop)
		f.Shutdown()
		if _, err := f.ForResource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "pods"}); err == nil {
			t.Error("an informer of a kind that is not here")
		}
	})
}
