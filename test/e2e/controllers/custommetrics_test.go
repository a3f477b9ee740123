package controllers

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	custom "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// adapter is a server of metrics, as those that stand before Prometheus are.
type adapter struct {
	*httptest.Server
	client kubernetes.Interface // by which it finds the pods of a selector

	mu     sync.Mutex
	values map[string]int64 // by metric
	asked  map[string]bool  // metrics and their selectors
}

func newAdapter(t *testing.T, c *lab.Cluster) *adapter {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(c.NodeIP, "0"))
	if err != nil {
		t.Fatal(err)
	}
	a := &adapter{client: labtest.Client(t, c), values: map[string]int64{}, asked: map[string]bool{}}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.Listener.Close()
	a.Listener = l
	a.StartTLS()
	t.Cleanup(a.Close)
	return a
}

func (a *adapter) set(metric string, value int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.values[metric] = value
}

func (a *adapter) was(asked string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[asked]
}

// value of a metric, as often as it is asked for.
func (a *adapter) value(metric, selector string) (resource.Quantity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[metric+"{"+selector+"}"] = true
	v, ok := a.values[metric]
	return *resource.NewQuantity(v, resource.DecimalSI), ok
}

const (
	customPath   = "/apis/custom.metrics.k8s.io/v1beta2"
	externalPath = "/apis/external.metrics.k8s.io/v1beta1"
)

func (a *adapter) serve(w http.ResponseWriter, r *http.Request) {
	answer := a.answer(r)
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// answer to /namespaces/NS/pods/*/METRIC, /namespaces/NS/RESOURCE/NAME/METRIC, /namespaces/NS/METRIC and discovery; nil: not found.
func (a *adapter) answer(r *http.Request) any {
	switch r.URL.Path {
	case customPath, externalPath:
		return metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: strings.TrimPrefix(r.URL.Path, "/apis/"),
			APIResources: []metav1.APIResource{{Name: "any/metric", Namespaced: true, Kind: "MetricValueList", Verbs: []string{"get"}}}}
	}
	if path, ok := strings.CutPrefix(r.URL.Path, externalPath+"/namespaces/"); ok {
		if _, metric, ok := strings.Cut(path, "/"); ok {
			v, known := a.value(metric, r.URL.Query().Get("labelSelector"))
			if !known {
				return nil
			}
			return external.ExternalMetricValueList{TypeMeta: metav1.TypeMeta{Kind: "ExternalMetricValueList", APIVersion: external.SchemeGroupVersion.String()},
				Items: []external.ExternalMetricValue{{MetricName: metric, Timestamp: metav1.Now(), Value: v}}}
		}
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, customPath+"/namespaces/"), "/") // NS, RESOURCE, NAME, METRIC
	if len(parts) != 4 {
		return nil
	}
	v, known := a.value(parts[3], r.URL.Query().Get("metricLabelSelector"))
	if !known {
		return nil
	}
	list := custom.MetricValueList{TypeMeta: metav1.TypeMeta{Kind: "MetricValueList", APIVersion: custom.SchemeGroupVersion.String()}}
	of := func(kind, name string) {
		list.Items = append(list.Items, custom.MetricValue{DescribedObject: corev1.ObjectReference{Kind: kind, Namespace: parts[0], Name: name},
			Metric: custom.MetricIdentifier{Name: parts[3]}, Timestamp: metav1.Now(), Value: v})
	}
	if parts[2] != "*" {
		of(parts[1], parts[2])
		return list
	}
	pods, err := a.client.CoreV1().Pods(parts[0]).List(r.Context(), metav1.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector")})
	if err != nil {
		return nil
	}
	for _, p := range pods.Items {
		of("Pod", p.Name)
	}
	return list
}

// publish puts the adapter behind both groups.
func (a *adapter) publish(t *testing.T, c *lab.Cluster) {
	t.Helper()
	host, port, err := net.SplitHostPort(a.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	api := func(group, version string) string {
		return fmt.Sprintf(`---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: %s.%s}
spec: {group: %s, version: %s, groupPriorityMinimum: 100, versionPriority: 100, insecureSkipTLSVerify: true, service: {namespace: default, name: adapter}}
`, version, group, group, version)
	}
	labtest.Apply(t, c, `apiVersion: v1
kind: Service
metadata: {name: adapter}
spec: {ports: [{name: https, port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: adapter, labels: {kubernetes.io/service-name: adapter}}
addressType: IPv4
endpoints: [{addresses: [`+host+`]}]
ports: [{name: https, port: `+port+`}]
`+api("custom.metrics.k8s.io", "v1beta2")+api("external.metrics.k8s.io", "v1beta1"))
	labtest.Kubectl(t, c, "wait", "--for=condition=Available", "apiservice/v1beta2.custom.metrics.k8s.io", "apiservice/v1beta1.external.metrics.k8s.io",
		"--timeout="+labtest.Patience.String())
}

// TestAutoscaleOtherMetrics: metrics that another server has, of pods, of an object and of things outside, decide on the number of
// pods, and the autoscaler's status tells them.
func TestAutoscaleOtherMetrics(t *testing.T) {
	t.Parallel() // it waits most of the time
	c := labtest.Cluster(t)
	a := newAdapter(t, c)
	workload := func(name, metric string) string {
		return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ` + name + `}
spec:
  replicas: 1
  selector: {matchLabels: {app: ` + name + `}}
  template:
    metadata: {labels: {app: ` + name + `}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"]}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: ` + name + `}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: ` + name + `}
  minReplicas: 1
  maxReplicas: 4
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
  metrics: [` + metric + `]
---
`
	}
	// An autoscaler that is there before the server of its metric says so, and goes on once it is there.
	labtest.Apply(t, c, workload("by-external", `{type: External, external: {metric: {name: queue, selector: {matchLabels: {of: orders}}}, target: {type: AverageValue, averageValue: "10"}}}`))
	labtest.Kubectl(t, c, "wait", "--for=jsonpath={.status.conditions[?(@.type==\"ScalingActive\")].reason}=FailedGetExternalMetric", "hpa/by-external", "--timeout="+labtest.Patience.String())
	a.set("queue", 28)
	a.set("requests", 20)
	a.set("hits", 300)
	a.publish(t, c)
	labtest.Apply(t, c, workload("by-pods", `{type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: "10"}}}`)+
		workload("by-object", `{type: Object, object: {describedObject: {apiVersion: v1, kind: Service, name: adapter}, metric: {name: hits, selector: {matchLabels: {verb: GET}}}, target: {type: Value, value: "100"}}}`))
	replicas := func(name string, want int) {
		t.Helper()
		labtest.Eventually(t, name+" has as many pods as its metric asks for", func() string {
			if got := labtest.Kubectl(t, c, "get", "deployment", name, "-o", "jsonpath={.spec.replicas}"); got != strconv.Itoa(want) {
				return got + " replicas, not " + strconv.Itoa(want) + "\n" + labtest.Kubectl(t, c, "describe", "hpa", name)
			}
			return ""
		})
	}
	replicas("by-external", 3) // 28 in the queue, 10 for each
	replicas("by-object", 4)   // three times what it is to be, whatever the number of pods: up to the most
	replicas("by-pods", 4)     // and each pod twice what it is to have
	for name, path := range map[string]string{
		"by-external": "{.status.currentMetrics[0].external.metric.name} {.status.currentMetrics[0].external.current.averageValue}",
		"by-pods":     "{.status.currentMetrics[0].pods.metric.name} {.status.currentMetrics[0].pods.current.averageValue}",
		"by-object":   "{.status.currentMetrics[0].object.metric.name} {.status.currentMetrics[0].object.current.value}",
	} {
		want := map[string]string{"by-external": "queue 9334m", "by-pods": "requests 20", "by-object": "hits 100"}[name]
		if name == "by-object" {
			a.set("hits", 100) // as it is to be: nothing changes
		}
		labtest.Eventually(t, name+" tells its metric", func() string {
			if got := labtest.Kubectl(t, c, "get", "hpa", name, "-o", "jsonpath="+path); got != want {
				return got + ", not " + want
			}
			return ""
		})
	}
	replicas("by-object", 4)
	if !a.was("queue{of=orders}") || !a.was("hits{verb=GET}") {
		t.Errorf("the metrics' selectors were not asked for: %v", a.asked)
	}
	a.set("queue", 5)
	a.set("requests", 1)
	a.set("hits", 25) // a quarter of what it is to be
	for _, name := range []string{"by-external", "by-pods", "by-object"} {
		replicas(name, 1)
	}
}
