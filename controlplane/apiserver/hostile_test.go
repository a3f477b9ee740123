package apiserver

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestHostile_AP8: metadata and objects have a size at which they end.
func TestHostile_AP8(t *testing.T) {
	r := start(t, "")
	maps := r.client.CoreV1().ConfigMaps("default")
	_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"k": strings.Repeat("x", 256<<10)}}}, createOptions)
	if !apierrors.IsInvalid(err) {
		t.Errorf("annotations beyond 256 kB: %v", err)
	}
	_, err = maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Data: map[string]string{"k": strings.Repeat("x", 1<<20+1)}}, createOptions)
	if !apierrors.IsInvalid(err) {
		t.Errorf("data beyond 1 MiB: %v", err)
	}
	_, err = maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"k": strings.Repeat("x", 4<<20)}}, createOptions)
	if !apierrors.IsRequestEntityTooLargeError(err) && !apierrors.IsInvalid(err) {
		t.Errorf("a body of 4 MiB: %v", err)
	}
	_, err = maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "d", Finalizers: []string{"not/a/finalizer"}}}, createOptions)
	if !apierrors.IsInvalid(err) {
		t.Errorf("a finalizer that is none: %v", err)
	}
}

// TestHostile_AP20: nobody routes a Service to the machine itself or its link.
func TestHostile_AP20(t *testing.T) {
	r := start(t, "")
	for _, addr := range []string{"127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0"} {
		_, err := r.client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "e-"}, AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{readyEndpoint(addr)}}, createOptions)
		if !apierrors.IsInvalid(err) {
			t.Errorf("an endpoint at %s: %v", addr, err)
		}
	}
}

// TestHostile_AP34: a dry run answers as the write would and leaves nothing behind.
func TestHostile_AP34(t *testing.T) {
	r := start(t, "")
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	pods := r.client.CoreV1().Pods("default")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if got, err := pods.Create(t.Context(), pod, dry); err != nil || got.UID == "" || got.Spec.RestartPolicy == "" {
		t.Errorf("create: %v", err)
	}
	if _, err := pods.Get(t.Context(), "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a dry create left: %v", err)
	}
	if _, err := pods.Create(t.Context(), pod, createOptions); err != nil {
		t.Fatal(err)
	}
	err := pods.Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}, dry)
	if err != nil {
		t.Errorf("bind: %v", err)
	}
	if err := pods.Delete(t.Context(), "p", metav1.DeleteOptions{DryRun: dry.DryRun}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := pods.Patch(t.Context(), "p", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{DryRun: dry.DryRun}); err != nil {
		t.Errorf("patch: %v", err)
	}
	got, err := pods.Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil || got.Spec.NodeName != "" || got.DeletionTimestamp != nil || len(got.Labels) > 0 {
		t.Errorf("dry runs changed the pod: %+v %v", got, err)
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.7.7", Ports: []corev1.ServicePort{{Port: 1}}}}
	for range 2 { // the address is not taken
		if _, err := r.client.CoreV1().Services("default").Create(t.Context(), svc, dry); err != nil {
			t.Errorf("service: %v", err)
		}
	}
}

// TestHostile_AP35: server-side apply refuses what conflicts, and what does not fit the schema is the client's mistake, not the server's.
func TestHostile_AP35(t *testing.T) {
	r := start(t, "")
	services := r.client.CoreV1().Services("default")
	apply := func(manager, spec string, force bool) error {
		_, err := services.Patch(t.Context(), "s", types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":`+spec+`}`),
			metav1.PatchOptions{FieldManager: manager, Force: &force})
		return err
	}
	if err := apply("a", `{"ports":[{"port":1,"protocol":"TCP"}],"selector":{"x":"1"}}`, false); err != nil {
		t.Fatal(err)
	}
	if err := apply("b", `{"selector":{"x":"2"}}`, false); !apierrors.IsConflict(err) {
		t.Errorf("a conflict: %v", err)
	}
	if err := apply("b", `{"selector":{"x":"2"}}`, true); err != nil {
		t.Errorf("by force: %v", err)
	}
	for _, bad := range []string{`{"ports":[{"port":1,"protocol":"TCP"},{"port":1,"protocol":"TCP"}]}`, `{"ports":{"port":1}}`, `{"ports":[1]}`, `{"nosuch":1}`, `null,"metadata":[]`} {
		if err := apply("a", bad, true); !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := apply("", `{}`, false); !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
		t.Errorf("without a manager: %v", err)
	}
}
