package apiserver

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage"
)

// TestCounts: objects are counted at most once in a while, and nobody but the first waits for it.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c count
		taken, failing := int64(0), errors.New("not now")
		take := func() (storage.Stats, error) {
			taken++
			time.Sleep(time.Second)
			return storage.Stats{ObjectCount: taken}, failing
		}
		expect := func(what string, want int64) {
			t.Helper()
			began := time.Now()
			st, err := c.get(take)
			if err != nil || st.ObjectCount != want {
				t.Errorf("%s: %d %v, want %d", what, st.ObjectCount, err, want)
			}
			if took := time.Since(began); took > 0 && want != 2 {
				t.Errorf("%s: waited %v", what, took)
			}
			synctest.Wait()
		}
		if _, err := c.get(take); !errors.Is(err, failing) {
			t.Errorf("the first fails: %v", err)
		}
		failing = nil
		expect("the first", 2)
		expect("soon", 2)
		time.Sleep(countMemory)
		expect("old", 2) // while it is taken
		expect("old, again", 2)
		time.Sleep(time.Second)
		synctest.Wait()
		expect("renewed", 3)
		failing = errors.New("gone")
		time.Sleep(countMemory)
		expect("old", 3)
		time.Sleep(time.Second)
		synctest.Wait()
		expect("the renewal failed", 3)
		if taken != 4 {
			t.Errorf("counted %d times, want 4", taken)
		}
	})
}

// What dashboards and alerts of any cluster ask for is there, with a value, under upstream's names.
func TestMetricNames(t *testing.T) {
	r := start(t, "")
	_, err := r.client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 30001}, {Name: "b", Port: 81}}}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []corev1.ServiceSpec{
		{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Port: 80}}},
		{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30001}}},
	} {
		if _, err := r.client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "taken"}, Spec: spec}, createOptions); !apierrors.IsInvalid(err) {
			t.Errorf("what is taken: %v", err)
		}
	}
	var values map[string]string
	scrape := func() {
		text, err := r.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		values = map[string]string{}
		for line := range strings.Lines(string(text)) {
			if at := strings.LastIndex(line, " "); at > 0 {
				values[line[:at]] = strings.TrimSpace(line[at:])
			}
		}
	}
	if _, err := r.as(t, r.with(t, "joe")).Discovery().ServerVersion(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "APIServices are known", func() bool {
		scrape()
		return values[`aggregator_unavailable_apiservice{name="v1.apps"}`] != ""
	})
	const ips = "kube_apiserver_clusterip_allocator_"
	for name, want := range map[string]string{
		ips + `allocated_ips{cidr="10.96.0.0/12"}`:                                            "2", // the server's own as well
		ips + `available_ips{cidr="10.96.0.0/12"}`:                                            "1.048572e+06",
		ips + `allocation_total{cidr="10.96.0.0/12",scope="dynamic"}`:                         "any",
		ips + `allocation_duration_seconds_count{cidr="10.96.0.0/12"}`:                        "any",
		ips + `allocation_errors_total{cidr="10.96.0.0/12",scope="static"}`:                   "any",
		`kube_apiserver_nodeport_allocator_allocation_errors_total{scope="static"}`:           "any",
		`kube_apiserver_nodeport_allocator_allocated_ports`:                                   "2",
		`kube_apiserver_nodeport_allocator_available_ports`:                                   "2766",
		`kube_apiserver_nodeport_allocator_allocation_total{scope="static"}`:                  "any",
		`kube_apiserver_nodeport_allocator_allocation_total{scope="dynamic"}`:                 "any",
		`apiserver_authorization_decisions_total{decision="allowed",name="rbac",type="RBAC"}`: "any",
		`apiserver_storage_size_bytes{storage_cluster_id="etcd-0"}`:                           "any",
		`aggregator_unavailable_apiservice{name="v1.apps"}`:                                   "0",
		`version_info{binary="1.37",component="kube",emulation="1.37",min_compat="1.36"}`:     "1",
		`kubernetes_feature_enabled{name="WatchList",stage="BETA"}`:                           "1",
		`serviceaccount_valid_tokens_total`:                                                   "any",
		`serviceaccount_stale_tokens_total`:                                                   "any",
		`serviceaccount_legacy_tokens_total`:                                                  "any",
	} {
		if got := values[name]; got == "" || want != "any" && got != want {
			t.Errorf("%s is %q, want %s", name, got, want)
		}
	}
}
