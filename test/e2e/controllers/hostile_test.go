package controllers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/lab/labtest"
)

// namespace makes one for the test; it goes with it.
func namespace(t *testing.T, client kubernetes.Interface, prefix string) string {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}) })
	return ns.Name
}

// TestHostile_AP27: owners in a ring, an owner in another namespace, one that is not there, and many dependents: what has no owner
// left goes, nothing else does, and nobody waits for it.
func TestHostile_AP27(t *testing.T) {
	c := labtest.Cluster(t)
	client := labtest.Client(t, c)
	ns, other := namespace(t, client, "owned-"), namespace(t, client, "owners-")
	make := func(ns, name string, owners ...*corev1.ConfigMap) *corev1.ConfigMap {
		t.Helper()
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		for _, o := range owners {
			cm.OwnerReferences = append(cm.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.Name, UID: o.UID})
		}
		cm, err := client.CoreV1().ConfigMaps(ns).Create(t.Context(), cm, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return cm
	}
	never := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "never", UID: "00000000-0000-0000-0000-000000000000"}}

	one := make(ns, "ring-1")
	two := make(ns, "ring-2", one)
	ring, err := client.CoreV1().ConfigMaps(ns).Patch(t.Context(), one.Name, types.MergePatchType, fmt.Appendf(nil,
		`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":%q,"uid":%q}]}}`, two.Name, two.UID), metav1.PatchOptions{})
	if err != nil || len(ring.OwnerReferences) != 1 {
		t.Fatalf("close the ring: %v", err)
	}
	owner := make(ns, "owner")
	const many = 300
	for i := range many {
		make(ns, fmt.Sprint("one-of-many-", i), owner)
	}
	make(ns, "of-two", owner, one) // keeps its other owner
	abroad := make(other, "abroad")
	make(ns, "of-abroad", abroad) // owners are looked for in one's own namespace
	make(ns, "of-nobody", never)
	make(ns, "of-nobody-too", never, one)
	make(ns, "free")

	if err := client.CoreV1().ConfigMaps(ns).Delete(t.Context(), "owner", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	want := "free of-nobody-too of-two ring-1 ring-2"
	names := func() string {
		list, err := client.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name!=kube-root-ca.crt"})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, cm := range list.Items {
			out = append(out, cm.Name)
		}
		return strings.Join(out, " ")
	}
	labtest.Eventually(t, "what has no owner goes", func() string {
		if got := names(); got != want {
			return "there is " + got
		}
		return ""
	})
	// What was made last is collected last: by its end everything before it has been looked at.
	make(ns, "last", never)
	labtest.Eventually(t, "the last goes", func() string {
		if got := names(); got != want {
			return "there is " + got
		}
		return ""
	})
	if _, err := client.CoreV1().ConfigMaps(other).Get(t.Context(), "abroad", metav1.GetOptions{}); err != nil {
		t.Errorf("the owner in another namespace: %v", err)
	}
	// A ring goes in the foreground too: neither waits for the other for ever.
	foreground := metav1.DeletePropagationForeground
	if err := client.CoreV1().ConfigMaps(ns).Delete(t.Context(), "ring-1", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "the ring goes", func() string {
		if got := names(); got != "free" {
			return "there is " + got
		}
		return ""
	})
}

// TestHostile_AP28: a namespace that is deleted keeps its NetworkPolicies until its last pod has ended (CVE-2024-7598).
func TestHostile_AP28(t *testing.T) {
	c := labtest.Cluster(t)
	client := labtest.Client(t, c)
	ns := namespace(t, client, "confined-")
	if _, err := client.NetworkingV1().NetworkPolicies(ns).Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "closed"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	grace := int64(3) // its shell ignores the signal: it ends when it is killed
	if _, err := client.CoreV1().Pods(ns).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "slow"},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{
			Name: "c", Image: "busybox:1.28", Command: []string{"sh", "-c", "trap '' TERM; while :; do sleep 1; done"}}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "the pod runs", func() string {
		p, err := client.CoreV1().Pods(ns).Get(t.Context(), "slow", metav1.GetOptions{})
		if err != nil || p.Status.Phase != corev1.PodRunning {
			return fmt.Sprint(p.Status.Phase, err)
		}
		return ""
	})
	w, err := client.NetworkingV1().NetworkPolicies(ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := client.CoreV1().Namespaces().Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for ev := range w.ResultChan() {
		if ev.Type != watch.Deleted {
			continue
		}
		if _, err := client.CoreV1().Pods(ns).Get(t.Context(), "slow", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the policy has gone while its pod is there (%v)", err)
		}
		return
	}
	t.Error("the policy's end was not seen")
}

// TestHostile_AP36: a hundred clients evict at once; there are never fewer pods ready than the budget asks for.
func TestHostile_AP36(t *testing.T) {
	c := labtest.Cluster(t)
	client := labtest.Client(t, c)
	ns := namespace(t, client, "budget-")
	labtest.Kubectl(t, c, "-n", ns, "create", "deployment", "web", "--image=keelson.dev/hello:v1", "--replicas=5")
	labtest.Kubectl(t, c, "-n", ns, "create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=3")
	labtest.Kubectl(t, c, "-n", ns, "rollout", "status", "deployment/web", "--timeout="+labtest.Patience.String())
	labtest.Eventually(t, "the budget is known", func() string {
		b, err := client.PolicyV1().PodDisruptionBudgets(ns).Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil || b.Status.DisruptionsAllowed != 2 {
			return fmt.Sprint(b.Status.DisruptionsAllowed, err)
		}
		return ""
	})
	list, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	healthy := map[types.UID]bool{}
	note := func(p *corev1.Pod, gone bool) int {
		ready := false
		for _, cond := range p.Status.Conditions {
			ready = ready || cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue
		}
		healthy[p.UID] = ready && !gone && p.DeletionTimestamp == nil
		n := 0
		for _, ok := range healthy {
			if ok {
				n++
			}
		}
		return n
	}
	for i := range list.Items {
		note(&list.Items[i], false)
	}
	least := make(chan int, 1)
	go func() { // ends with the watch
		fewest := len(list.Items)
		for ev := range w.ResultChan() {
			if p, ok := ev.Object.(*corev1.Pod); ok {
				fewest = min(fewest, note(p, ev.Type == watch.Deleted))
			}
		}
		least <- fewest
	}()

	const enough = 20
	var evicted, refused atomic.Int32
	var clients sync.WaitGroup
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	for range 100 {
		client := kubernetes.NewForConfigOrDie(cfg)
		clients.Go(func() {
			for evicted.Load() < enough && t.Context().Err() == nil {
				pods, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
				if err != nil || len(pods.Items) == 0 {
					continue
				}
				p := pods.Items[rand.IntN(len(pods.Items))]
				zero := int64(0)
				err = client.PolicyV1().Evictions(ns).Evict(t.Context(), &policyv1.Eviction{
					ObjectMeta:    metav1.ObjectMeta{Namespace: ns, Name: p.Name},
					DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &zero},
				})
				switch {
				case err == nil:
					evicted.Add(1)
				case apierrors.IsTooManyRequests(err):
					refused.Add(1)
				case apierrors.IsNotFound(err), apierrors.IsConflict(err), t.Context().Err() != nil:
				default:
					t.Errorf("evict: %v", err)
					return
				}
			}
		})
	}
	clients.Wait()
	w.Stop()
	if n := <-least; n < 3 {
		t.Errorf("%d pods were ready at the least, the budget asks for 3 (%d evicted, %d refused)", n, evicted.Load(), refused.Load())
	}
	if refused.Load() == 0 {
		t.Error("the budget was never in the way: the test shows nothing")
	}
}

// TestHostile_AP21: who may edit a namespace may not point its Services into others by hand: EndpointSlices and Endpoints are not
// among what the role edit may write (CVE-2021-25740), and an ExternalName is a name in DNS, nothing that the proxy follows.
func TestHostile_AP21(t *testing.T) {
	c := labtest.Cluster(t)
	client := labtest.Client(t, c)
	ns := namespace(t, client, "tenant-")
	labtest.Kubectl(t, c, "-n", ns, "create", "rolebinding", "editor", "--clusterrole=edit", "--user=tenant")
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "tenant"}
	tenant := kubernetes.NewForConfigOrDie(cfg)
	labtest.Eventually(t, "the tenant may edit", func() string { // once the binding is known to who decides
		if _, err := tenant.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "mine-"}}, metav1.CreateOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "theirs", Labels: map[string]string{discoveryv1.LabelServiceName: "mine"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.2"}}},
	}
	if _, err := tenant.DiscoveryV1().EndpointSlices(ns).Create(t.Context(), slice, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("an EndpointSlice by a tenant: %v, want Forbidden", err)
	}
	if _, err := tenant.CoreV1().Endpoints(ns).Create(t.Context(), &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}, metav1.CreateOptions{}); !apierrors.IsForbidden(err) { //nolint:staticcheck // what is tried
		t.Errorf("Endpoints by a tenant: %v, want Forbidden", err)
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "away"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeExternalName, ExternalName: "kubernetes.default.svc.cluster.local"}}
	svc, err = tenant.CoreV1().Services(ns).Create(t.Context(), svc, metav1.CreateOptions{})
	if err != nil || svc.Spec.ClusterIP != "" {
		t.Errorf("an ExternalName has the address %q: %v", svc.Spec.ClusterIP, err)
	}
}
