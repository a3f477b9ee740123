package endpointslice

import (
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/expectation"
)

// A cache that lags is not taken for the truth: a service whose slice it does not show yet gets no second one, and of two slices of which
// one was removed, the other stays.
func TestLaggingCache(t *testing.T) {
	client := fake.NewClientset()
	d := controller.Deps{Client: client, Informers: informers.NewSharedInformerFactory(client, 0), Log: slog.New(slog.DiscardHandler)}
	w := &writer{Deps: d, services: d.Informers.Core().V1().Services().Informer(), pods: d.Informers.Core().V1().Pods().Informer(),
		nodes: d.Informers.Core().V1().Nodes().Informer(), slices: d.Informers.Discovery().V1().EndpointSlices().Informer(), expect: expectation.New()}
	saw := sliceKeys(w.slices, w.expect, managedBy)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.slices.AddIndexers(cache.Indexers{byService: serviceOf}))
	svc := service("http")
	svc.Spec.Selector = map[string]string{"app": "web"}
	must(w.services.GetIndexer().Add(svc))
	must(w.pods.GetIndexer().Add(pod(1, func(p *corev1.Pod) { p.Labels = svc.Spec.Selector })))
	twice := func() []discoveryv1.EndpointSlice {
		t.Helper()
		for range 2 {
			_, err := w.reconcile(t.Context(), "ns/web")
			must(err)
		}
		list, err := client.DiscoveryV1().EndpointSlices("ns").List(t.Context(), metav1.ListOptions{})
		must(err)
		return list.Items
	}
	have := twice()
	if len(have) != 1 || len(have[0].Endpoints) != 1 {
		t.Fatalf("slices that the cache does not show are made again: %v", have)
	}
	two := []*discoveryv1.EndpointSlice{&have[0], have[0].DeepCopy()}
	two[0].UID, two[1].UID, two[1].Name = "u1", "u2", have[0].Name+"x"
	must(client.Tracker().Add(two[1]))
	for _, s := range two {
		must(w.slices.GetIndexer().Add(s))
		saw(s, nil)
	}
	// The first plan removes one of them. As the cache still shows both, the order in which it lists them must not matter.
	for range 20 {
		if have = twice(); len(have) != 1 {
			t.Fatalf("of two slices that are alike %d are left: %v", len(have), have)
		}
	}
}
