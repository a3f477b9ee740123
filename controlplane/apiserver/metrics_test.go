package apiserver

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
)

// serveSummary is a kubelet whose machine uses half a core since an hour, and each running container a quarter since a minute.
func serveSummary(w http.ResponseWriter, r *http.Request, client kubernetes.Interface) {
	now := time.Now()
	used := func(since time.Duration, share float64) (*stats.CPUStats, *stats.MemoryStats) {
		nano, memory := uint64(float64(now.Sub(began)+since)*share), uint64(1<<20)
		return &stats.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: &nano}, &stats.MemoryStats{WorkingSetBytes: &memory}
	}
	var sum stats.Summary
	sum.Node.CPU, sum.Node.Memory = used(time.Hour, 0.5)
	pods, err := client.CoreV1().Pods("").List(r.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=n1"})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, p := range pods.Items {
		c := stats.ContainerStats{Name: "c", StartTime: metav1.NewTime(began.Add(-time.Minute))}
		c.CPU, c.Memory = used(time.Minute, 0.25)
		sum.Pods = append(sum.Pods, stats.PodStats{PodRef: stats.PodReference{UID: string(p.UID)}, Containers: []stats.ContainerStats{c}})
	}
	_ = json.NewEncoder(w).Encode(sum)
}

var began = time.Now()

func TestMetrics(t *testing.T) {
	r := start(t, "")
	withKubelet(t, r)
	for _, name := range []string{"busy", "starting"} {
		p := pod(name)
		p.Labels, p.Spec.NodeName = map[string]string{"app": name}, "n1"
		made, err := r.client.CoreV1().Pods("default").Create(t.Context(), p, createOptions)
		if err != nil {
			t.Fatal(err)
		}
		if name == "busy" {
			made.Status.Phase = corev1.PodRunning
			made.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}}
			must(t)(r.client.CoreV1().Pods("default").UpdateStatus(t.Context(), made, updateOptions))
		}
	}
	must(t)(r.client.RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "viewer"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "viewer"}}}, createOptions))

	admin := metricsclient.NewForConfigOrDie(r.admin).MetricsV1beta1()
	nodes, err := admin.NodeMetricses().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != "n1" {
		t.Fatalf("nodes: %v, %v", nodes, err)
	}
	wantUsage(t, "node", nodes.Items[0].Usage, 500)
	if w := nodes.Items[0].Window.Duration; w < firstWindow {
		t.Errorf("window %s", w)
	}
	for what, o := range map[string]metav1.ListOptions{"": {}, "app=busy": {LabelSelector: "app=busy"}} {
		pods, err := admin.PodMetricses("").List(t.Context(), o)
		if err != nil || len(pods.Items) != 1 || pods.Items[0].Name != "busy" || pods.Items[0].Labels["app"] != "busy" {
			t.Errorf("pods with %q: %v, %v", what, pods, err)
			continue
		}
		wantUsage(t, "pod", pods.Items[0].Containers[0].Usage, 250)
	}
	if pods, err := admin.PodMetricses("").List(t.Context(), metav1.ListOptions{LabelSelector: "app=starting"}); err != nil || len(pods.Items) != 0 {
		t.Errorf("a pod that has not begun: %v, %v", pods, err)
	}
	if _, err := admin.PodMetricses("default").Get(t.Context(), "starting", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a pod that has not begun: %v", err)
	}
	as := rest.CopyConfig(r.admin)
	as.Impersonate.UserName = "viewer"
	viewer := metricsclient.NewForConfigOrDie(as).MetricsV1beta1()
	if _, err := viewer.PodMetricses("default").Get(t.Context(), "busy", metav1.GetOptions{}); err != nil {
		t.Errorf("who may view pods: %v", err)
	}
	if _, err := viewer.NodeMetricses().Get(t.Context(), "n1", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("who may view one namespace asks about a node: %v", err)
	}
}

// wantUsage allows for a loaded machine, where an answer is late by much of the window.
func wantUsage(t *testing.T, what string, l corev1.ResourceList, milli int64) {
	t.Helper()
	if got := l.Cpu().MilliValue(); got < milli/4 || got > milli*4 || l.Memory().Value() != 1<<20 {
		t.Errorf("%s uses %dm and %d bytes, want about %dm", what, got, l.Memory().Value(), milli)
	}
}
